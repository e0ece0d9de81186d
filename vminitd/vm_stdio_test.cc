// Streams of a process, with a folder of Unix sockets for the host's ports.
#include "vminitd/vm_stdio.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <map>
#include <optional>
#include <string>

#include "base/files.h"
#include "base/transport.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using namespace std::chrono_literals;
using base::UniqueFd;

struct Fixture {
    Fixture() : loop(std::move(*EventLoop::make())) {
        transport = std::move(*base::openTransport("unix://" + folder.path()));
        deadline = Timer(*loop, 30s, [this] {
            late = true;
            loop->stop();
        });
    }
    void listen(uint32_t port) { listeners[port] = std::move(*transport->listen(port)); }
    UniqueFd accepted(uint32_t port) { return std::move(*listeners.at(port)->accept()); }

    base::Result<std::shared_ptr<VmStdio>> dial(const StdioPorts& ports, bool terminal = false) {
        std::optional<base::Result<std::shared_ptr<VmStdio>>> result;
        VmStdio::dial(*loop, *transport, ports, terminal, [&](auto dialled) {
            result = std::move(dialled);
            loop->stop();
        });
        if (!result) run();
        return std::move(*result);
    }
    // Runs until somebody stops the loop.
    void run() {
        loop->run();
        BOOST_TEST_REQUIRE(!late);
    }
    // Runs until `fd` is readable.
    void runUntilReadable(const UniqueFd& fd) {
        const auto watch = Watch::make(*loop, fd.get(), POLLIN, [this](uint32_t) { loop->stop(); });
        run();
    }
    std::string receive(const UniqueFd& fd) {
        runUntilReadable(fd);
        char buffer[4096];
        const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
        return {buffer, n > 0 ? static_cast<size_t>(n) : 0};
    }
    void exited(VmStdio& stdio) {
        stdio.processExited([this] { loop->stop(); });
        run();
    }

    const TestFolder folder;
    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<base::Transport> transport;
    std::map<uint32_t, std::unique_ptr<base::Listener>> listeners;
    Timer deadline;
    bool late = false;
};

bool isNull(const UniqueFd& fd) {
    struct stat st {};
    struct stat null {};
    return ::fstat(fd.get(), &st) == 0 && ::stat("/dev/null", &null) == 0 &&
           st.st_rdev == null.st_rdev && S_ISCHR(st.st_mode);
}

// A terminal, as vmexec makes one.
struct Terminal {
    Terminal() : master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
        BOOST_REQUIRE(::grantpt(master.get()) == 0);
        BOOST_REQUIRE(::unlockpt(master.get()) == 0);
        char name[64];
        BOOST_REQUIRE(::ptsname_r(master.get(), name, sizeof name) == 0);
        slave = UniqueFd(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
        termios raw{};
        BOOST_REQUIRE(::tcgetattr(slave.get(), &raw) == 0);
        ::cfmakeraw(&raw);
        BOOST_REQUIRE(::tcsetattr(slave.get(), TCSANOW, &raw) == 0);
    }
    UniqueFd master, slave;
};

BOOST_FIXTURE_TEST_SUITE(vm_stdio, Fixture)

BOOST_AUTO_TEST_CASE(streams_are_dialled_in_order_and_lead_through_pipes) {
    for (const uint32_t port : {10U, 11U, 12U}) listen(port);
    auto stdio = dial({10, 11, 12});
    BOOST_TEST_REQUIRE(stdio.has_value());
    const UniqueFd in = accepted(10);
    const UniqueFd out = accepted(11);
    const UniqueFd err = accepted(12);
    auto ends = (*stdio)->pipes();
    BOOST_TEST_REQUIRE(ends.has_value());
    for (const UniqueFd* end : {&ends->in, &ends->out, &ends->err}) {
        BOOST_TEST(end->get() > 2);
        BOOST_TEST((::fcntl(end->get(), F_GETFL) & O_NONBLOCK) == 0);
        BOOST_TEST((::fcntl(end->get(), F_GETFD) & FD_CLOEXEC) != 0);
    }
    BOOST_TEST(base::writeAll(in.get(), "to the program").has_value());
    BOOST_TEST(receive(ends->in) == "to the program");
    BOOST_TEST(base::writeAll(ends->out.get(), "from it").has_value());
    BOOST_TEST(receive(out) == "from it");
    BOOST_TEST(base::writeAll(ends->err.get(), "its errors").has_value());
    BOOST_TEST(receive(err) == "its errors");
    (*stdio)->closeStdin();
    BOOST_TEST(receive(ends->in) == "");
}

BOOST_AUTO_TEST_CASE(absent_ports_are_the_null_device) {
    auto stdio = dial({});
    BOOST_TEST_REQUIRE(stdio.has_value());
    auto ends = (*stdio)->pipes();
    BOOST_TEST_REQUIRE(ends.has_value());
    for (const UniqueFd* end : {&ends->in, &ends->out, &ends->err}) BOOST_TEST(isNull(*end));
    exited(**stdio);
}

BOOST_AUTO_TEST_CASE(a_refused_port_is_an_error_and_closes_the_others) {
    listen(10);
    const auto stdio = dial({10, 11, std::nullopt});
    BOOST_TEST_REQUIRE(!stdio.has_value());
    BOOST_TEST((stdio.error().code() == base::Code::kInternal));
    BOOST_TEST(stdio.error().message().find("could not connect to socket on port 11") == 0);
    BOOST_TEST(receive(accepted(10)) == "");
}

BOOST_AUTO_TEST_CASE(port_zero_is_a_port) {
    const auto stdio = dial({0, std::nullopt, std::nullopt});
    BOOST_TEST_REQUIRE(!stdio.has_value());
    BOOST_TEST(stdio.error().message().find("port 0") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(what_is_in_the_pipe_at_the_end_arrives_before_the_end_is_told) {
    listen(11);
    auto stdio = dial({std::nullopt, 11, std::nullopt});
    auto ends = (*stdio)->pipes();
    const UniqueFd out = accepted(11);
    BOOST_TEST(base::writeAll(ends->out.get(), "last words").has_value());
    // A grandchild may hold it still: ends->out stays open.
    exited(**stdio);
    BOOST_TEST(receive(out) == "last words");
    BOOST_TEST(receive(out) == "");
}

BOOST_AUTO_TEST_CASE(a_reader_that_stops_holds_the_end_up_for_a_second_only) {
    listen(11);
    auto stdio = dial({std::nullopt, 11, std::nullopt});
    auto ends = (*stdio)->pipes();
    const UniqueFd out = accepted(11);
    (void)::fcntl(ends->out.get(), F_SETFL, O_NONBLOCK);
    const std::string block(4096, 'x');
    size_t sent = 0;
    // Until the pipe and the socket are full, for good.
    for (int quiet = 0; quiet < 20;) {
        const ssize_t n = ::write(ends->out.get(), block.data(), block.size());
        if (n > 0) sent += static_cast<size_t>(n);
        quiet = n > 0 ? 0 : quiet + 1;
        const Timer pause(*loop, 2ms, [this] { loop->stop(); });
        run();
    }
    const auto begin = EventLoop::Clock::now();
    exited(**stdio);
    const auto took = EventLoop::Clock::now() - begin;
    BOOST_TEST((took >= 900ms && took < 10s));
    stdio->reset();
    ends->out.reset();
    // Nothing was lost: the pump goes on without its owner.
    size_t got = 0;
    while (true) {
        const std::string part = receive(out);
        if (part.empty()) break;
        got += part.size();
    }
    BOOST_TEST(got == sent);
}

BOOST_AUTO_TEST_CASE(abandoned_streams_are_closed_at_once) {
    for (const uint32_t port : {10U, 11U}) listen(port);
    auto stdio = dial({10, 11, std::nullopt});
    const UniqueFd in = accepted(10);
    const UniqueFd out = accepted(11);
    auto ends = (*stdio)->pipes();
    (*stdio)->abandon();
    BOOST_TEST(receive(in) == "");
    BOOST_TEST(receive(out) == "");
}

BOOST_AUTO_TEST_CASE(a_terminal_has_two_streams_and_a_size) {
    for (const uint32_t port : {10U, 11U, 12U}) listen(port);
    auto stdio = dial({10, 11, 12}, true);
    BOOST_TEST_REQUIRE(stdio.has_value());
    const UniqueFd in = accepted(10);
    const UniqueFd out = accepted(11);
    pollfd third{listeners[12]->fd(), POLLIN, 0};
    BOOST_TEST(::poll(&third, 1, 0) == 0);  // stderr's port was left alone
    auto ends = (*stdio)->pipes();
    for (const UniqueFd* end : {&ends->in, &ends->out, &ends->err}) BOOST_TEST(isNull(*end));
    BOOST_TEST((*stdio)->resize({1, 1}).has_value());  // not there yet: no error

    Terminal terminal;
    BOOST_TEST((*stdio)->useTerminal(terminal.master.get()).has_value());
    terminal.master.reset();
    BOOST_TEST(base::writeAll(in.get(), "typed").has_value());
    BOOST_TEST(receive(terminal.slave) == "typed");
    BOOST_TEST(base::writeAll(terminal.slave.get(), "shown").has_value());
    BOOST_TEST(receive(out) == "shown");
    BOOST_TEST((*stdio)->resize({33, 111}).has_value());
    winsize size{};
    BOOST_TEST(::ioctl(terminal.slave.get(), TIOCGWINSZ, &size) == 0);
    BOOST_TEST((size.ws_row == 33 && size.ws_col == 111));

    // Somebody who opens the terminal again finds it working; the end is the process's.
    BOOST_TEST(base::writeAll(terminal.slave.get(), "bye").has_value());
    terminal.slave.reset();
    exited(**stdio);
    BOOST_TEST(receive(out) == "bye");
    BOOST_TEST(receive(out) == "");
}

BOOST_AUTO_TEST_CASE(no_terminal_no_size) {
    auto stdio = dial({});
    const auto resized = (*stdio)->resize({1, 1});
    BOOST_TEST_REQUIRE(!resized.has_value());
    BOOST_TEST((resized.error().code() == base::Code::kUnsupported));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd
