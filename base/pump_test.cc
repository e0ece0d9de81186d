#include "base/pump.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/socket.h"

namespace {

using namespace arca::base;
using namespace std::chrono_literals;

struct Pipe {
    Pipe() {
        int ends[2];
        BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        in.reset(ends[0]);
        out.reset(ends[1]);
    }
    UniqueFd in, out;
};

struct Fixture {
    Fixture() : loop(std::move(*EventLoop::make())) {
        deadline = Timer(*loop, 30s, [this] {
            late = true;
            loop->stop();
        });
    }
    // Runs the loop until the pump has ended.
    void runToEnd() {
        loop->run();
        BOOST_TEST(!late);
    }
    Pump::Done stop() {
        return [this](size_t bytes) {
            lost = bytes;
            loop->stop();
        };
    }
    std::unique_ptr<EventLoop> loop;
    Timer deadline;
    bool late = false;
    size_t lost = 0;
};

BOOST_FIXTURE_TEST_SUITE(pump, Fixture)

// The end of the source may come in any of the rounds of one turn, the last one too.
BOOST_AUTO_TEST_CASE(a_source_of_any_length_comes_to_its_end) {
    for (size_t pieces = 0; pieces < 20; ++pieces) {
        UniqueFd source(::memfd_create("source", MFD_CLOEXEC));
        BOOST_TEST_REQUIRE(::ftruncate(source.get(), static_cast<off_t>(pieces << 16U)) == 0);
        UniqueFd sink(::open("/dev/null", O_WRONLY | O_CLOEXEC));
        (void)Pump::start(*loop, std::move(source), std::move(sink), stop());
        runToEnd();
        BOOST_TEST_REQUIRE(!late, pieces);
        deadline.reset();  // of the loop that goes
        loop = std::move(*EventLoop::make());
        deadline = Timer(*loop, 30s, [this] {
            late = true;
            loop->stop();
        });
    }
}

BOOST_AUTO_TEST_CASE(every_byte_arrives_and_then_the_end) {
    Pipe source, sink;
    const std::string text(3 << 20U, 'x');
    std::thread writer([&] {
        (void)writeAll(source.out.get(), text);
        source.out.reset();
    });
    std::string got;
    std::thread reader([&] { got = readAll(sink.in.get(), 16 << 20U).value_or("failed"); });
    Pump::start(*loop, unshared(std::move(source.in), O_RDONLY),
                unshared(std::move(sink.out), O_WRONLY), stop());
    runToEnd();
    writer.join();
    reader.join();
    BOOST_TEST((got == text));
    BOOST_TEST(lost == 0U);
}

BOOST_AUTO_TEST_CASE(blocking_descriptors_do_not_block_the_loop) {
    Pipe source, sink;
    BOOST_REQUIRE(writeAll(source.out.get(), std::string(60000, 'a')));
    bool ticked = false;
    Timer tick(*loop, 100ms, [&] {
        ticked = true;
        loop->stop();
    });
    // Nobody reads `sink`, whose pipe is full already.
    BOOST_REQUIRE(writeAll(sink.out.get(), std::string(65536, 'b')));
    const auto pump = Pump::start(*loop, std::move(source.in), std::move(sink.out), stop());
    runToEnd();
    BOOST_TEST(ticked);
    pump->abandon();
}

BOOST_AUTO_TEST_CASE(the_end_of_a_socket_is_passed_on_as_half_close) {
    auto source = std::move(*socketPair(SOCK_STREAM));
    auto sink = std::move(*socketPair(SOCK_STREAM));
    BOOST_REQUIRE(writeAll(source.first.get(), "hello"));
    BOOST_REQUIRE(::shutdown(source.first.get(), SHUT_WR) == 0);
    UniqueFd held(::fcntl(sink.second.get(), F_DUPFD_CLOEXEC, 3));
    Pump::start(*loop, std::move(source.second), std::move(sink.second), stop());
    runToEnd();
    // Another descriptor of the same socket is still open here, so this end is the shutdown's.
    BOOST_TEST(readAll(sink.first.get(), 100).value_or("failed") == "hello");
}

BOOST_AUTO_TEST_CASE(a_reader_that_goes_away_ends_the_writer) {
    (void)std::signal(SIGPIPE, SIG_IGN);
    Pipe source, sink;
    const int source_out = source.out.get();
    BOOST_REQUIRE(writeAll(source_out, "lost"));
    sink.in.reset();
    Pump::start(*loop, std::move(source.in), std::move(sink.out), stop());
    runToEnd();
    BOOST_TEST(lost == 4U);
    BOOST_TEST(::write(source_out, "x", 1) == -1);
    BOOST_TEST(errno == EPIPE);
}

BOOST_AUTO_TEST_CASE(finish_takes_what_is_there_though_the_writer_stays) {
    Pipe source, sink;
    BOOST_REQUIRE(writeAll(source.out.get(), "all of it"));
    Pump::start(*loop, std::move(source.in), std::move(sink.out), stop())->finish();
    runToEnd();
    BOOST_TEST(readAll(sink.in.get(), 100).value_or("failed") == "all of it");
}

BOOST_AUTO_TEST_CASE(a_stalled_stream_does_not_hold_up_another) {
    Pipe stalled_source, stalled_sink, source, sink;
    (void)::fcntl(stalled_source.out.get(), F_SETFL, O_NONBLOCK);
    std::string fill(4096, 'f');
    while (::write(stalled_source.out.get(), fill.data(), fill.size()) > 0) {
    }
    const auto stalled = Pump::start(*loop, std::move(stalled_source.in),
                                     unshared(std::move(stalled_sink.out), O_WRONLY), {});
    BOOST_REQUIRE(writeAll(source.out.get(), "through"));
    source.out.reset();
    Pump::start(*loop, std::move(source.in), std::move(sink.out), stop());
    runToEnd();
    BOOST_TEST(readAll(sink.in.get(), 100).value_or("failed") == "through");
    BOOST_TEST(!stalled->ended());
    stalled->abandon();
}

BOOST_AUTO_TEST_CASE(regular_files_and_dev_null_are_streams_too) {
    auto null = openAt(AT_FDCWD, "/dev/null", O_RDONLY);
    Pipe sink;
    Pump::start(*loop, std::move(*null), std::move(sink.out), stop());
    runToEnd();
    BOOST_TEST(readAll(sink.in.get(), 100).value_or("failed").empty());
}

BOOST_AUTO_TEST_CASE(a_held_pump_reads_nothing_until_it_is_let_go) {
    Pipe source, sink;
    BOOST_REQUIRE(writeAll(source.out.get(), "later"));
    const auto pump = Pump::start(*loop, std::move(source.in), std::move(sink.out), stop());
    pump->hold(true);
    Timer look(*loop, 50ms, [&] {
        BOOST_TEST(!waitReadable(sink.in.get(), 0ms).value_or(true));
        source.out.reset();
        pump->hold(false);
    });
    runToEnd();
    BOOST_TEST(readAll(sink.in.get(), 100).value_or("failed") == "later");
}

// So much at once that its pump grows, if it may. What passes is not the same twice in a row.
struct Bulk {
    explicit Bulk(EventLoop& loop, Pump::Done done = {}) {
        pump = Pump::start(loop, unshared(std::move(source.in), O_RDONLY),
                           unshared(std::move(sink.out), O_WRONLY), std::move(done));
        pump->mayGrow();
        writer = std::thread([this] { written = writeAll(source.out.get(), text).has_value(); });
        reader =
            std::thread([this] { got = readAll(sink.in.get(), 64 << 20U).value_or("failed"); });
    }
    ~Bulk() {
        source.out.reset();
        writer.join();
        if (reader.joinable()) reader.join();
    }
    // Once the pump has ended.
    [[nodiscard]] const std::string& received() {
        reader.join();
        return got;
    }
    [[nodiscard]] size_t pipeBytes() const {
        return static_cast<size_t>(::fcntl(source.out.get(), F_GETPIPE_SZ));
    }
    [[nodiscard]] static std::string numbers() {
        std::string text;
        while (text.size() < (24 << 20U)) text += std::to_string(text.size()) + "\n";
        return text;
    }
    Pipe source, sink;
    std::string text = numbers();
    std::string got;
    std::atomic<bool> written = false;
    std::shared_ptr<Pump> pump;
    std::thread writer, reader;
};

BOOST_AUTO_TEST_CASE(a_bulk_stream_grows_and_shrinks_again_when_it_is_idle) {
    constexpr size_t kPlain = 65536;
    Bulk bulk(*loop, stop());
    BOOST_TEST(bulk.pipeBytes() == kPlain);
    bool grew = false;
    std::function<void()> look;
    Timer again;
    look = [&] {
        if (bulk.pipeBytes() == Pump::kBulkBytes) grew = true;
        const bool idle = bulk.written && grew && bulk.pipeBytes() == kPlain;
        if (idle) return bulk.source.out.reset();
        again = Timer(*loop, 1ms, [&] { look(); });
    };
    look();
    runToEnd();
    BOOST_TEST(grew);
    BOOST_TEST((bulk.received() == bulk.text));
}

BOOST_AUTO_TEST_CASE(so_many_streams_grow_at_a_time_and_the_others_pass_too) {
    size_t ended = 0;
    std::vector<std::unique_ptr<Bulk>> streams;
    constexpr size_t kStreams = Pump::kBulkPumps + 2;
    for (size_t i = 0; i < kStreams; ++i) {
        streams.push_back(std::make_unique<Bulk>(*loop, [&](size_t bytes) {
            lost += bytes;
            if (++ended == kStreams) loop->stop();
        }));
    }
    size_t most = 0;
    std::function<void()> look;
    Timer again;
    look = [&] {
        size_t grown = 0;
        for (const auto& stream : streams) {
            if (!stream->source.out.valid()) continue;
            if (stream->pipeBytes() == Pump::kBulkBytes) ++grown;
            if (stream->written) stream->source.out.reset();
        }
        most = std::max(most, grown);
        again = Timer(*loop, 1ms, [&] { look(); });
    };
    look();
    runToEnd();
    BOOST_TEST(most > 0U);
    BOOST_TEST(most <= size_t{Pump::kBulkPumps});
    BOOST_TEST(lost == 0U);
    for (const auto& stream : streams) BOOST_TEST((stream->received() == stream->text));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
