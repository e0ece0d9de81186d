#include "runtime/console.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <string>

#include "runtime/freezer.h"
#include "runtime/scratch_dir_test.h"

namespace arca::runtime {
namespace {

using base::UniqueFd;

struct Terminal {
    UniqueFd master, slave;
    Terminal() {
        int ends[2] = {-1, -1};
        BOOST_TEST_REQUIRE(::openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) == 0);
        master.reset(ends[0]);
        slave.reset(ends[1]);
        termios mode{};
        BOOST_TEST_REQUIRE(::tcgetattr(slave.get(), &mode) == 0);
        ::cfmakeraw(&mode);
        BOOST_TEST_REQUIRE(::tcsetattr(slave.get(), TCSANOW, &mode) == 0);
    }
};

struct Pipe {
    UniqueFd read_end, write_end;
    Pipe() {
        int ends[2] = {-1, -1};
        BOOST_TEST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        read_end.reset(ends[0]);
        write_end.reset(ends[1]);
    }
};

// One round of what a waiting command does.
void turn(Relay& relay, int wait_ms = 1000) {
    std::vector<pollfd> entries;
    relay.addTo(entries);
    BOOST_TEST_REQUIRE(::poll(entries.data(), entries.size(), wait_ms) >= 0);
    BOOST_TEST_REQUIRE(relay.process(entries).has_value());
}

std::string readSome(int fd) {
    char buffer[8192];
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : "";
}

BOOST_AUTO_TEST_SUITE(relay)

BOOST_AUTO_TEST_CASE(moves_bytes_both_ways) {
    Terminal terminal;
    Pipe input, output;
    auto relay = Relay::make(input.read_end.get(), output.write_end.get(), terminal.master.get());
    BOOST_TEST_REQUIRE(relay.has_value());
    BOOST_TEST(base::writeAll(input.write_end.get(), "typed").has_value());
    turn(*relay);
    turn(*relay);
    BOOST_TEST(readSome(terminal.slave.get()) == "typed");
    BOOST_TEST(base::writeAll(terminal.slave.get(), "printed").has_value());
    turn(*relay);
    turn(*relay);
    BOOST_TEST(readSome(output.read_end.get()) == "printed");
}

BOOST_AUTO_TEST_CASE(the_end_of_input_leaves_the_terminal_open) {
    Terminal terminal;
    Pipe input, output;
    auto relay = Relay::make(input.read_end.get(), output.write_end.get(), terminal.master.get());
    input.write_end.reset();
    turn(*relay);
    BOOST_TEST(base::writeAll(terminal.slave.get(), "still here").has_value());
    turn(*relay);
    turn(*relay);
    BOOST_TEST(readSome(output.read_end.get()) == "still here");
}

BOOST_AUTO_TEST_CASE(a_reader_that_left_does_not_stop_the_program) {
    sigset_t pipe_only;
    (void)::sigemptyset(&pipe_only);
    (void)::sigaddset(&pipe_only, SIGPIPE);
    (void)::sigprocmask(SIG_BLOCK, &pipe_only, nullptr);  // as SignalInbox does
    Terminal terminal;
    Pipe input, output;
    auto relay = Relay::make(input.read_end.get(), output.write_end.get(), terminal.master.get());
    output.read_end.reset();
    // Far more than all buffers hold: the writer would stand still if nobody took it.
    const std::string block(4000, 'x');
    for (int i = 0; i < 200; ++i) {
        BOOST_TEST(base::writeAll(terminal.slave.get(), block).has_value());
        for (int turns = 0; turns < 4; ++turns) turn(*relay, 10);
    }
}

BOOST_AUTO_TEST_CASE(what_the_terminal_holds_at_the_end_comes_out) {
    Terminal terminal;
    Pipe input, output;
    auto relay = Relay::make(input.read_end.get(), output.write_end.get(), terminal.master.get());
    BOOST_TEST(base::writeAll(terminal.slave.get(), std::string(3000, 'y')).has_value());
    terminal.slave.reset();
    BOOST_TEST(relay->drain().has_value());
    BOOST_TEST(readSome(output.read_end.get()).size() == 3000U);
}

BOOST_AUTO_TEST_CASE(a_terminal_that_stays_open_and_silent_does_not_hold_the_end_up) {
    Terminal terminal;
    Pipe input, output;
    auto relay = Relay::make(input.read_end.get(), output.write_end.get(), terminal.master.get());
    BOOST_TEST(relay->drain().has_value());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(freezer)

BOOST_AUTO_TEST_CASE(both_kinds_of_file_are_understood) {
    const ScratchDir v1;
    const ScratchDir v2;
    BOOST_TEST(!isFrozen({}));
    BOOST_TEST(!isFrozen({"/nonexistent"}));
    writeText(v1.file("freezer.state"), "THAWED\n");
    writeText(v2.file("cgroup.freeze"), "0\n");
    BOOST_TEST(!isFrozen({v1.path(), v2.path()}));
    writeText(v1.file("freezer.state"), "FROZEN\n");
    BOOST_TEST(isFrozen({v2.path(), v1.path()}));
    BOOST_TEST(thaw({v2.path(), v1.path()}).has_value());
    BOOST_TEST(textOf(v1.file("freezer.state")).rfind("THAWED", 0) == 0U);
    writeText(v2.file("cgroup.freeze"), "1\n");
    BOOST_TEST(isFrozen({v2.path()}));
    BOOST_TEST(thaw({v2.path()}).has_value());
    BOOST_TEST(textOf(v2.file("cgroup.freeze")).rfind('0', 0) == 0U);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
