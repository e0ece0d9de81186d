// The small parts: credit, byte queue, header layout, connect line, options, timers.
#include <sys/eventfd.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <limits>
#include <string>

#include "vsock/byte_queue.h"
#include "vsock/credit.h"
#include "vsock/event_loop.h"
#include "vsock/handshake.h"
#include "vsock/linked_list.h"
#include "vsock/options.h"
#include "vsock/packet.h"

using namespace arca::vsock;
using arca::base::Code;
using arca::base::UniqueFd;

namespace {

std::span<const std::byte> bytesOf(const std::string& text) {
    return std::as_bytes(std::span(text));
}

std::string textOf(const ByteQueue& queue) {
    std::string out;
    for (const iovec& part : queue.parts()) {
        out.append(static_cast<const char*>(part.iov_base), part.iov_len);
    }
    return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(packet_header)

BOOST_AUTO_TEST_CASE(layout_is_that_of_the_specification) {
    PacketHeader header;
    header.source_cid = 0x0102030405060708;
    header.target_cid = 2;
    header.source_port = 0x11121314;
    header.target_port = 1024;
    header.length = 0x21222324;
    header.type = 1;
    header.op = Op::kData;
    header.flags = 3;
    header.buffer_space = 0x40000;
    header.forwarded_bytes = 0xfffffffe;
    const HeaderBytes bytes = encodeHeader(header);
    const unsigned char expected[] = {8, 7, 6,    5,    4,    3,    2,    1,    2,    0,    0,
                                      0, 0, 0,    0,    0,    0x14, 0x13, 0x12, 0x11, 0,    4,
                                      0, 0, 0x24, 0x23, 0x22, 0x21, 1,    0,    5,    0,    3,
                                      0, 0, 0,    0,    0,    4,    0,    0xfe, 0xff, 0xff, 0xff};
    static_assert(sizeof expected == kHeaderBytes);
    BOOST_TEST(std::memcmp(bytes.data(), expected, sizeof expected) == 0);
    const PacketHeader back = decodeHeader(bytes);
    BOOST_TEST(back.source_cid == header.source_cid);
    BOOST_TEST(back.forwarded_bytes == header.forwarded_bytes);
    BOOST_TEST((back.op == Op::kData));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(credit)

BOOST_AUTO_TEST_CASE(the_guest_cannot_overrun_the_buffer) {
    Credit credit(1000);
    BOOST_TEST(credit.take(600));
    BOOST_TEST(!credit.take(401));
    BOOST_TEST(credit.held() == 600U);
    BOOST_TEST(credit.take(400));
    BOOST_TEST(!credit.take(1));
    BOOST_TEST(!credit.take(0xffffffff));
    credit.forward(1000);
    BOOST_TEST(credit.take(1000));
}

BOOST_AUTO_TEST_CASE(an_update_is_due_after_a_quarter) {
    Credit credit(1000);
    BOOST_TEST(credit.take(1000));
    credit.forward(249);
    BOOST_TEST(!credit.updateDue());
    credit.forward(1);
    BOOST_TEST(credit.updateDue());
    BOOST_TEST(credit.tellForwarded() == 250U);
    BOOST_TEST(!credit.updateDue());
}

BOOST_AUTO_TEST_CASE(an_update_is_due_after_a_quarter_of_what_a_smaller_guest_can_have_under_way) {
    Credit credit(1000);
    credit.onPeer(100, 0);
    BOOST_TEST(!credit.updateDue());
    BOOST_TEST(credit.take(100));
    credit.forward(24);
    BOOST_TEST(!credit.updateDue());
    credit.forward(1);
    BOOST_TEST(credit.updateDue());
    credit.onPeer(4000, 0);
    BOOST_TEST(!credit.updateDue());
    BOOST_TEST(credit.tellForwarded() == 25U);
    credit.onPeer(1, 0);
    BOOST_TEST(!credit.updateDue());
    credit.forward(1);
    BOOST_TEST(credit.updateDue());
}

BOOST_AUTO_TEST_CASE(counters_run_over) {
    Credit credit(256U << 10U);
    credit.onPeer(256U << 10U, 0);
    uint32_t forwarded = 0;
    for (int i = 0; i < 40000; ++i) {  // 10 GiB each way
        BOOST_TEST_REQUIRE(credit.take(256U << 10U));
        credit.forward(256U << 10U);
        BOOST_TEST_REQUIRE(credit.sendable() == 256U << 10U);
        credit.send(256U << 10U);
        BOOST_TEST_REQUIRE(credit.sendable() == 0U);
        forwarded += 256U << 10U;
        credit.onPeer(256U << 10U, forwarded);
    }
    BOOST_TEST(credit.held() == 0U);
}

BOOST_AUTO_TEST_CASE(a_guest_with_mad_numbers_gets_nothing) {
    Credit credit(1000);
    credit.onPeer(500, 0);
    credit.send(400);
    BOOST_TEST(credit.sendable() == 100U);
    credit.onPeer(300, 0);  // shrank below what is under way
    BOOST_TEST(credit.sendable() == 0U);
    credit.onPeer(500, 401);  // forwarded more than it got
    BOOST_TEST(credit.sendable() == 0U);
    credit.onPeer(500, 400);
    BOOST_TEST(credit.sendable() == 500U);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(byte_queue)

BOOST_AUTO_TEST_CASE(keeps_order_over_wraps_and_growth) {
    ByteQueue queue;
    std::string model;
    unsigned seed = 1;
    for (int i = 0; i < 5000; ++i) {
        seed = seed * 1103515245 + 12345;
        const std::string piece(seed >> 16U & 0x7ffU, static_cast<char>('a' + i % 26));
        queue.append(bytesOf(piece));
        model += piece;
        const size_t drop = std::min<size_t>(model.size(), seed >> 8U & 0xfffU);
        queue.drop(drop);
        model.erase(0, drop);
        BOOST_TEST_REQUIRE(queue.size() == model.size());
        BOOST_TEST_REQUIRE((textOf(queue) == model));
    }
}

BOOST_AUTO_TEST_CASE(gives_its_memory_back) {
    ByteQueue queue;
    BOOST_TEST(queue.capacity() == 0U);
    queue.append({});
    BOOST_TEST(queue.capacity() == 0U);
    queue.append(bytesOf(std::string(5000, 'x')));
    BOOST_TEST(queue.capacity() == 8192U);
    queue.drop(4999);
    BOOST_TEST(queue.capacity() == 8192U);
    queue.drop(1);
    BOOST_TEST(queue.capacity() == 0U);
    BOOST_TEST(queue.empty());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(linked_list)

BOOST_AUTO_TEST_CASE(members_leave_by_themselves) {
    struct Node {
        Link<Node> link{*this};
    };
    Node first;
    LinkedList<Node> list;
    BOOST_TEST(list.empty());
    {
        Node second;
        list.pushBack(first.link);
        list.pushBack(second.link);
        BOOST_TEST(&list.front() == &first);
        list.pushBack(first.link);  // to the end
        BOOST_TEST(&list.front() == &second);
    }
    BOOST_TEST(&list.front() == &first);
    first.link.unlink();
    BOOST_TEST(list.empty());
    BOOST_TEST(!first.link.linked());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(handshake)

BOOST_AUTO_TEST_CASE(lines) {
    using Status = ConnectLine::Status;
    struct Case {
        std::string text;
        Status status;
        uint32_t port = 0;
        size_t bytes = 0;
    };
    for (const Case& c :
         std::vector<Case>{{"", Status::kIncomplete},
                           {"CONNECT 10", Status::kIncomplete},
                           {"CONNECT 1024\n", Status::kComplete, 1024, 13},
                           {"connect 1024\n", Status::kComplete, 1024, 13},
                           {"CONNECT 0\n", Status::kComplete, 0, 10},
                           {"CONNECT 4294967294\nabc\n", Status::kComplete, 4294967294, 19},
                           {"CONNECT 4294967295\n", Status::kMalformed},
                           {"CONNECT 4294967296\n", Status::kMalformed},
                           {"CONNECT -1\n", Status::kMalformed},
                           {"CONNECT +1\n", Status::kMalformed},
                           {"CONNECT  1\n", Status::kMalformed},
                           {"CONNECT 1 \n", Status::kMalformed},
                           {"CONNECT 1\r\n", Status::kMalformed},
                           {"CONNECT 0x10\n", Status::kMalformed},
                           {"CONNECT \n", Status::kMalformed},
                           {"CONNECT\n", Status::kMalformed},
                           {"\n", Status::kMalformed},
                           {"HELLO 1\n", Status::kMalformed},
                           {std::string(31, 'C'), Status::kIncomplete},
                           {std::string(32, 'C'), Status::kMalformed},
                           {"CONNECT " + std::string(24, '0'), Status::kMalformed},
                           {std::string("CONNECT 1\0\n", 11), Status::kMalformed}}) {
        BOOST_TEST_CONTEXT(c.text) {
            const ConnectLine line = parseConnectLine(c.text);
            BOOST_TEST((line.status == c.status));
            BOOST_TEST(line.port == c.port);
            BOOST_TEST(line.bytes == c.bytes);
        }
    }
    BOOST_TEST(acceptLine(1U << 30U) == "OK 1073741824\n");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(options)

BOOST_AUTO_TEST_CASE(all_of_them) {
    const std::vector<const char*> arguments = {"--vhost-user-fd",
                                                "7",
                                                "--base=/run/x/v.sock",
                                                "--cid",
                                                "42",
                                                "--max-streams",
                                                "10",
                                                "--user",
                                                "1:2",
                                                "--keep",
                                                "--debug",
                                                "--log",
                                                "/tmp/log",
                                                "--log-format",
                                                "json",
                                                "--ready-fd=9"};
    const auto options = parseOptions(arguments);
    BOOST_TEST_REQUIRE(bool(options));
    BOOST_TEST(options->vhost_user_fd.value() == 7);
    BOOST_TEST(options->base == "/run/x/v.sock");
    BOOST_TEST(options->cid == 42U);
    BOOST_TEST(options->max_streams == 10U);
    BOOST_TEST(options->user->user == 1U);
    BOOST_TEST(options->user->group == 2U);
    BOOST_TEST(options->keep);
    BOOST_TEST(options->log_json);
    BOOST_TEST(options->ready_fd.value() == 9);
}

BOOST_AUTO_TEST_CASE(wrong_ones_are_refused) {
    const std::vector<std::vector<const char*>> wrong = {
        {},
        {"--base", "b", "--cid", "3"},
        {"--vhost-user", "v", "--cid", "3"},
        {"--vhost-user", "v", "--base", "b"},
        {"--vhost-user", "v", "--vhost-user-fd", "3", "--base", "b", "--cid", "3"},
        {"--vhost-user", "v", "--base", "b", "--cid", "2"},
        {"--vhost-user", "v", "--base", "b", "--cid", "4294967295"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--cid", "4"},
        {"--vhost-user", "v", "--base", "b", "--cid"},
        {"--vhost-user", "v", "--base", "", "--cid", "3"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--keep=1"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--what"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "extra"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--user", "1"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--user", "1:4294967295"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--max-streams", "0"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--max-streams", "65537"},
        {"--vhost-user", "v", "--base", "b", "--cid", "3", "--log-format", "xml"},
    };
    for (const std::vector<const char*>& arguments : wrong) {
        const auto options = parseOptions(arguments);
        BOOST_TEST_REQUIRE(!options);
        BOOST_TEST((options.error().code() == Code::kInvalidArgument));
    }
    const std::vector<const char*> help = {"--help"};
    BOOST_TEST(parseOptions(help)->help);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(event_loop)

namespace {

EventLoop::Clock::time_point fake_now;

struct Counter final : EventHandler {
    explicit Counter(EventLoop& loop) : watch(loop, *this) {
        BOOST_TEST_REQUIRE(bool(watch.open(UniqueFd(::eventfd(1, EFD_CLOEXEC)), EPOLLIN)));
    }
    void onEvents(uint32_t /*events*/) override {
        ++calls;
        if (other != nullptr) other->watch.close();
    }
    Watch watch;
    int calls = 0;
    Counter* other = nullptr;
};

}  // namespace

BOOST_AUTO_TEST_CASE(who_left_is_not_called) {
    const auto loop = EventLoop::create();
    BOOST_TEST_REQUIRE(bool(loop));
    Counter first(**loop);
    Counter second(**loop);
    first.other = &second;
    second.other = &first;
    BOOST_TEST(bool((*loop)->turn(EventLoop::Wait::kForEvents)));
    BOOST_TEST(first.calls + second.calls == 1);
}

BOOST_AUTO_TEST_CASE(timers_run_in_order_and_may_go_away) {
    fake_now = {};
    const auto loop = EventLoop::create([] { return fake_now; });
    BOOST_TEST_REQUIRE(bool(loop));
    std::string order;
    auto doomed = std::make_unique<Timer>(**loop, [&] { order += 'x'; });
    std::unique_ptr<Timer> self;
    self = std::make_unique<Timer>(**loop, [&] {
        order += 's';
        self.reset();
    });
    Timer early(**loop, [&] {
        order += 'e';
        doomed.reset();
    });
    doomed->start(std::chrono::milliseconds(30));
    self->start(std::chrono::milliseconds(20));
    early.start(std::chrono::milliseconds(10));
    BOOST_TEST(bool((*loop)->turn(EventLoop::Wait::kNot)));
    BOOST_TEST(order.empty());
    fake_now += std::chrono::milliseconds(40);
    BOOST_TEST(bool((*loop)->turn(EventLoop::Wait::kForEvents)));
    BOOST_TEST(order == "es");
    BOOST_TEST(!early.running());
}

BOOST_AUTO_TEST_SUITE_END()
