#include "vsock/stream.h"

#include <array>
#include <optional>
#include <string>

#include "vsock/test_tools.h"

using namespace arca::vsock;
using namespace arca::vsock::testing;
using arca::base::UniqueFd;
using Phase = Stream::Phase;
using Origin = Stream::Origin;

namespace {

struct Bench : StreamListener {
    explicit Bench(Origin origin = Origin::kGuest, uint32_t space = 65536)
        : loop(makeLoop()), stream(*loop, *this, {5000, 77}, origin, space) {
        auto [ours, theirs] = makePair();
        host = std::move(theirs);
        const bool accepted = bool(stream.start(std::move(ours)));
        BOOST_TEST_REQUIRE(accepted);
        stream.onCredit(65536, 0);
    }
    void onStreamChanged(Stream& /*stream*/) override { ++changes; }

    void turn() { BOOST_TEST_REQUIRE(bool(loop->turn(EventLoop::Wait::kNot))); }
    // The control packets that wait.
    std::vector<Op> controls() {
        std::vector<Op> out;
        while (const auto op = stream.nextControl()) out.push_back(*op);
        return out;
    }
    // An open stream with nothing to say.
    void settleOpen() {
        BOOST_TEST_REQUIRE((stream.phase() == Phase::kOpen));
        (void)controls();
    }
    void data(std::string text) {
        std::array<iovec, 1> part{iovec{text.data(), text.size()}};
        stream.onData(part, static_cast<uint32_t>(text.size()));
    }
    std::string fromHost(size_t room = 65536) {
        std::string out(room, '\0');
        std::array<iovec, 1> part{iovec{out.data(), out.size()}};
        out.resize(stream.readFromHost(part));
        return out;
    }

    std::unique_ptr<EventLoop> loop;
    Stream stream;
    UniqueFd host;
    int changes = 0;
};

bool only(const std::vector<Op>& ops, Op op) {
    return ops == std::vector<Op>{op};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(stream)

BOOST_AUTO_TEST_CASE(a_guests_request_is_answered_and_bytes_flow) {
    Bench bench;
    BOOST_TEST(only(bench.controls(), Op::kResponse));
    bench.data("to the host");
    BOOST_TEST(readNow(bench.host) == "to the host");
    BOOST_TEST(writeNow(bench.host, "to the guest") == 12U);
    bench.turn();
    BOOST_TEST(bench.stream.readyToSend());
    BOOST_TEST(bench.fromHost() == "to the guest");
    BOOST_TEST(!bench.stream.readyToSend());
    BOOST_TEST(bench.controls().empty());
}

BOOST_AUTO_TEST_CASE(the_host_hears_ok_when_the_guest_accepts) {
    Bench bench(Origin::kHost);
    BOOST_TEST((bench.stream.phase() == Phase::kRequested));
    BOOST_TEST(only(bench.controls(), Op::kRequest));
    BOOST_TEST(!bench.stream.readyToSend());
    bench.stream.onResponse();
    BOOST_TEST((bench.stream.phase() == Phase::kOpen));
    BOOST_TEST(readNow(bench.host) == "OK 5000\n");
}

BOOST_AUTO_TEST_CASE(a_refused_host_gets_the_end_without_ok) {
    Bench bench(Origin::kHost);
    bench.stream.onReset();
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(!bench.stream.takeOwedReset());
    BOOST_TEST(readNow(bench.host).empty());
    BOOST_TEST(atEnd(bench.host));
}

BOOST_AUTO_TEST_CASE(a_host_that_leaves_while_it_waits_resets_the_guest) {
    Bench bench(Origin::kHost);
    bench.host.reset();
    bench.turn();
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(bench.stream.takeOwedReset());
    BOOST_TEST(bench.changes == 1);
}

BOOST_AUTO_TEST_CASE(a_guest_that_does_not_answer_is_given_up) {
    Bench bench(Origin::kHost);
    fake_now += Stream::kRequestTimeout - std::chrono::milliseconds(1);
    bench.turn();
    BOOST_TEST((bench.stream.phase() == Phase::kRequested));
    fake_now += std::chrono::milliseconds(1);
    bench.turn();
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(bench.stream.takeOwedReset());
    BOOST_TEST(atEnd(bench.host));
}

BOOST_AUTO_TEST_CASE(an_answered_request_has_no_time_limit_any_more) {
    Bench bench(Origin::kHost);
    bench.stream.onResponse();
    fake_now += std::chrono::hours(24);
    bench.turn();
    BOOST_TEST((bench.stream.phase() == Phase::kOpen));
}

BOOST_AUTO_TEST_CASE(what_a_full_host_does_not_take_is_kept_in_order) {
    Bench bench;
    bench.settleOpen();
    std::string sent;
    size_t held = 0;
    for (int i = 0; held == 0; ++i) {
        const std::string piece(10000, static_cast<char>('a' + i % 26));
        bench.data(piece);
        sent += piece;
        held = bench.stream.buffered();
        BOOST_TEST_REQUIRE(sent.size() < size_t{1} << 20U);
    }
    BOOST_TEST_REQUIRE((bench.stream.phase() == Phase::kOpen));
    (void)bench.controls();
    std::string got;
    while (got.size() < sent.size()) {
        got += readNow(bench.host);
        bench.turn();
    }
    BOOST_TEST((got == sent));
    BOOST_TEST(bench.stream.buffered() == 0U);
}

BOOST_AUTO_TEST_CASE(the_guest_is_told_of_room_when_the_host_reads) {
    Bench bench;
    bench.settleOpen();
    const size_t in_socket = [&] {
        size_t total = 0;
        while (bench.stream.buffered() == 0) {
            bench.data(std::string(16384, 'x'));
            total += 16384;
        }
        return total - bench.stream.buffered();
    }();
    BOOST_TEST(in_socket > 65536U);
    while (bench.stream.buffered() + 16384 <= 65536) bench.data(std::string(16384, 'x'));
    BOOST_TEST_REQUIRE((bench.stream.phase() == Phase::kOpen));
    (void)bench.controls();
    (void)bench.stream.tellForwarded();
    (void)readNow(bench.host);
    bench.turn();
    BOOST_TEST(only(bench.controls(), Op::kCreditUpdate));
}

BOOST_AUTO_TEST_CASE(a_guest_that_makes_its_buffer_smaller_is_told_of_what_it_was_not_yet) {
    Bench bench(Origin::kGuest, 65536);
    bench.settleOpen();
    bench.data(std::string(1000, 'x'));
    BOOST_TEST(bench.controls().empty());
    bench.stream.onCredit(65536, 0);
    BOOST_TEST(bench.controls().empty());
    bench.stream.onCredit(2000, 0);
    BOOST_TEST(only(bench.controls(), Op::kCreditUpdate));
}

BOOST_AUTO_TEST_CASE(a_guest_that_overruns_its_credit_is_reset) {
    Bench bench;
    bench.settleOpen();
    while (bench.stream.phase() == Phase::kOpen && bench.stream.buffered() <= 65536) {
        bench.data(std::string(30000, 'x'));
    }
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(bench.stream.takeOwedReset());
    BOOST_TEST(bench.stream.buffered() == 0U);
}

BOOST_AUTO_TEST_CASE(data_in_a_wrong_place_resets) {
    {
        Bench bench(Origin::kHost);
        bench.data("early");
        BOOST_TEST((bench.stream.phase() == Phase::kDead));
        BOOST_TEST(bench.stream.takeOwedReset());
    }
    {
        Bench bench;
        bench.stream.onShutdown(kNoMoreSend);
        bench.data("late");
        BOOST_TEST((bench.stream.phase() == Phase::kDead));
        BOOST_TEST(bench.stream.takeOwedReset());
    }
    {
        Bench bench;
        bench.stream.onResponse();
        BOOST_TEST((bench.stream.phase() == Phase::kDead));
    }
    {
        Bench bench(Origin::kHost);
        bench.stream.onShutdown(kNoMoreSend);
        BOOST_TEST((bench.stream.phase() == Phase::kDead));
    }
}

BOOST_AUTO_TEST_CASE(half_close_by_the_host) {
    Bench bench;
    bench.settleOpen();
    BOOST_TEST(writeNow(bench.host, "last") == 4U);
    BOOST_TEST(::shutdown(bench.host.get(), SHUT_WR) == 0);
    bench.turn();
    BOOST_TEST(bench.fromHost() == "last");
    BOOST_TEST(bench.stream.readyToSend());  // the end is still to be found
    BOOST_TEST(bench.fromHost().empty());
    BOOST_TEST(only(bench.controls(), Op::kShutdown));
    BOOST_TEST(bench.stream.shutdownFlags() == kNoMoreSend);
    BOOST_TEST((bench.stream.phase() == Phase::kOpen));
    bench.data("the other way still works");
    BOOST_TEST(readNow(bench.host) == "the other way still works");
    // The guest ends its direction, too: both are done, and it must confirm with a reset.
    bench.stream.onShutdown(kNoMoreSend);
    BOOST_TEST((bench.stream.phase() == Phase::kClosing));
    BOOST_TEST(only(bench.controls(), Op::kShutdown));
    BOOST_TEST(bench.stream.shutdownFlags() == kNoMoreAtAll);
    BOOST_TEST(atEnd(bench.host));
    bench.stream.onReset();
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(!bench.stream.takeOwedReset());
}

BOOST_AUTO_TEST_CASE(half_close_by_the_guest_waits_for_its_bytes) {
    Bench bench;
    bench.settleOpen();
    std::string sent;
    while (bench.stream.buffered() == 0) {
        bench.data(std::string(20000, 'x'));
        sent += std::string(20000, 'x');
    }
    bench.stream.onShutdown(kNoMoreSend);
    BOOST_TEST(!atEnd(bench.host));
    std::string got;
    while (got.size() < sent.size()) {
        got += readNow(bench.host);
        bench.turn();
    }
    BOOST_TEST((got == sent));
    BOOST_TEST(atEnd(bench.host));
    BOOST_TEST((bench.stream.phase() == Phase::kOpen));
    BOOST_TEST(writeNow(bench.host, "answer") == 6U);
    bench.turn();
    BOOST_TEST(bench.fromHost() == "answer");
}

BOOST_AUTO_TEST_CASE(a_guest_that_reads_no_more_fails_the_hosts_writes) {
    Bench bench;
    bench.settleOpen();
    bench.stream.onShutdown(kNoMoreReceive);
    BOOST_TEST(writeNow(bench.host, "x") == 0U);
    BOOST_TEST(errno == EPIPE);
    BOOST_TEST(!bench.stream.readyToSend());
    bench.data("still flows");
    BOOST_TEST(readNow(bench.host) == "still flows");
    BOOST_TEST((bench.stream.phase() == Phase::kOpen));
}

BOOST_AUTO_TEST_CASE(a_host_that_reads_no_more_is_told_to_the_guest) {
    Bench bench;
    bench.settleOpen();
    BOOST_TEST(::shutdown(bench.host.get(), SHUT_RD) == 0);
    bench.data("nobody reads this");
    BOOST_TEST(only(bench.controls(), Op::kShutdown));
    BOOST_TEST(bench.stream.shutdownFlags() == kNoMoreReceive);
    bench.data("nor this, which was under way");
    BOOST_TEST((bench.stream.phase() == Phase::kOpen));
    BOOST_TEST(bench.stream.buffered() == 0U);
    BOOST_TEST(writeNow(bench.host, "the other way") == 13U);
    bench.turn();
    BOOST_TEST(bench.fromHost() == "the other way");
}

BOOST_AUTO_TEST_CASE(a_host_that_closes_is_read_to_its_end_first) {
    Bench bench;
    bench.settleOpen();
    BOOST_TEST(writeNow(bench.host, "last words") == 10U);
    bench.host.reset();
    bench.turn();
    // That nobody reads any more is told at once.
    BOOST_TEST(only(bench.controls(), Op::kShutdown));
    BOOST_TEST(bench.stream.shutdownFlags() == kNoMoreReceive);
    BOOST_TEST(bench.fromHost(4) == "last");
    BOOST_TEST(bench.stream.readyToSend());
    BOOST_TEST(bench.fromHost(100) == " words");
    BOOST_TEST(bench.stream.readyToSend());
    BOOST_TEST(bench.fromHost().empty());
    BOOST_TEST((bench.stream.phase() == Phase::kClosing));
    BOOST_TEST(bench.stream.shutdownFlags() == kNoMoreAtAll);
}

BOOST_AUTO_TEST_CASE(a_close_that_is_not_confirmed_ends_by_time) {
    Bench bench;
    bench.settleOpen();
    bench.host.reset();
    bench.turn();
    BOOST_TEST(bench.fromHost().empty());
    BOOST_TEST_REQUIRE((bench.stream.phase() == Phase::kClosing));
    bench.data("under way");  // no violation: the guest may not know yet
    BOOST_TEST((bench.stream.phase() == Phase::kClosing));
    fake_now += Stream::kCloseTimeout;
    bench.turn();
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(bench.stream.takeOwedReset());
}

BOOST_AUTO_TEST_CASE(both_sides_closing_at_once_end_with_a_reset) {
    Bench bench;
    bench.settleOpen();
    bench.host.reset();
    bench.turn();
    BOOST_TEST(bench.fromHost().empty());
    BOOST_TEST_REQUIRE((bench.stream.phase() == Phase::kClosing));
    bench.stream.onShutdown(kNoMoreAtAll);
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(bench.stream.takeOwedReset());
}

BOOST_AUTO_TEST_CASE(a_guest_that_closes_need_not_wait_for_a_slow_host) {
    for (const bool orderly : {true, false}) {
        Bench bench;
        bench.settleOpen();
        std::string sent;
        while (bench.stream.buffered() == 0) {
            bench.data(std::string(20000, 'x'));
            sent += std::string(20000, 'x');
        }
        if (orderly) {
            bench.stream.onShutdown(kNoMoreAtAll);
        } else {
            bench.stream.onReset();
        }
        BOOST_TEST(bench.stream.takeOwedReset() == orderly);
        BOOST_TEST((bench.stream.phase() == Phase::kDraining));
        BOOST_TEST(!bench.stream.attached());
        BOOST_TEST(bench.controls().empty());
        BOOST_TEST(writeNow(bench.host, "x") == 0U);  // nobody would read it
        std::string got;
        while (got.size() < sent.size()) {
            got += readNow(bench.host);
            bench.turn();
        }
        BOOST_TEST((got == sent));
        BOOST_TEST(atEnd(bench.host));
        BOOST_TEST((bench.stream.phase() == Phase::kDead));
    }
}

BOOST_AUTO_TEST_CASE(draining_ends_with_the_host) {
    Bench bench;
    bench.settleOpen();
    while (bench.stream.buffered() == 0) bench.data(std::string(20000, 'x'));
    bench.stream.detach();
    BOOST_TEST_REQUIRE((bench.stream.phase() == Phase::kDraining));
    bench.host.reset();
    bench.turn();
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
}

BOOST_AUTO_TEST_CASE(separate_shutdowns_add_up) {
    Bench bench;
    bench.settleOpen();
    bench.stream.onShutdown(kNoMoreSend);
    bench.stream.onShutdown(kNoMoreReceive);
    BOOST_TEST((bench.stream.phase() == Phase::kDead));
    BOOST_TEST(bench.stream.takeOwedReset());
    BOOST_TEST(atEnd(bench.host));
}

BOOST_AUTO_TEST_CASE(credit_is_asked_for_once) {
    Bench bench;
    bench.settleOpen();
    bench.stream.onCredit(4, 0);
    BOOST_TEST(writeNow(bench.host, "12345678") == 8U);
    bench.turn();
    BOOST_TEST(bench.stream.readyToSend());
    BOOST_TEST(bench.stream.sendable() == 4U);
    BOOST_TEST(bench.fromHost(4) == "1234");
    BOOST_TEST(!bench.stream.readyToSend());
    BOOST_TEST(only(bench.controls(), Op::kCreditRequest));
    BOOST_TEST(!bench.stream.readyToSend());
    bench.stream.onCredit(4, 0);
    BOOST_TEST(!bench.stream.readyToSend());
    BOOST_TEST(bench.controls().empty());
    bench.stream.onCredit(4, 4);
    BOOST_TEST(bench.stream.readyToSend());
    BOOST_TEST(bench.fromHost(4) == "5678");
}

BOOST_AUTO_TEST_CASE(descriptors_sent_along_are_dropped_and_stall_nothing) {
    Bench bench;
    bench.settleOpen();
    const size_t before = openDescriptors();
    BOOST_TEST(bool(arca::base::sendMessage(bench.host.get(), "one", {STDERR_FILENO})));
    BOOST_TEST(bool(arca::base::sendMessage(bench.host.get(), "two", {STDERR_FILENO})));
    bench.turn();
    std::string got;
    while (bench.stream.readyToSend()) got += bench.fromHost();
    BOOST_TEST(got == "onetwo");
    BOOST_TEST(openDescriptors() == before);
}

BOOST_AUTO_TEST_SUITE_END()
