#include "runtime/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace arca::runtime {
namespace {

using base::failErrno;
using base::Result;
using base::UniqueFd;

short revents(const std::vector<pollfd>& entries, int fd) {
    short found = 0;
    for (const pollfd& entry : entries) {
        if (entry.fd == fd) found = static_cast<short>(found | entry.revents);
    }
    return found;
}

}  // namespace

Result<HostTerminal> HostTerminal::open() {
    HostTerminal terminal;
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::isatty(fd) == 0) continue;
        terminal.fd_.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
        if (!terminal.fd_.valid()) return failErrno("duplicate the terminal");
        return terminal;
    }
    terminal.fd_.reset(::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC));
    return terminal;
}

HostTerminal::HostTerminal(HostTerminal&& other) noexcept
    : fd_(std::move(other.fd_)), saved_(std::exchange(other.saved_, std::nullopt)) {}

HostTerminal::~HostTerminal() {
    if (saved_) (void)::tcsetattr(fd_.get(), TCSADRAIN, &*saved_);
}

Result<> HostTerminal::setRaw() {
    if (!fd_.valid()) return {};
    termios mode{};
    if (::tcgetattr(fd_.get(), &mode) != 0) return failErrno("read the terminal's mode");
    saved_ = mode;
    ::cfmakeraw(&mode);
    if (::tcsetattr(fd_.get(), TCSANOW, &mode) != 0) return failErrno("set the terminal's mode");
    return {};
}

Result<> HostTerminal::copySizeTo(int terminal_fd) const {
    winsize size{};
    if (!fd_.valid() || ::ioctl(fd_.get(), TIOCGWINSZ, &size) != 0) return {};
    if (::ioctl(terminal_fd, TIOCSWINSZ, &size) != 0) return failErrno("resize the terminal");
    return {};
}

Relay::Relay(int input, int output, int master) {
    up_.from = input;
    up_.to = master;
    down_.from = master;
    down_.to = output;
}

Result<Relay> Relay::make(int input, int output, int master) {
    const int flags = ::fcntl(master, F_GETFL);
    if (flags < 0 || ::fcntl(master, F_SETFL, flags | O_NONBLOCK) != 0) {
        return failErrno("set O_NONBLOCK");
    }
    return Relay(input, output, master);
}

void Relay::addTo(std::vector<pollfd>& entries) {
    for (const Direction* direction : {&up_, &down_}) {
        if (!direction->empty()) {
            entries.push_back({direction->to, POLLOUT, 0});
        } else if (direction->from >= 0) {
            entries.push_back({direction->from, POLLIN, 0});
        }
    }
}

Result<> Relay::process(const std::vector<pollfd>& entries) {
    for (Direction* direction : {&up_, &down_}) {
        if (!direction->empty()) {
            if (revents(entries, direction->to) != 0) ARCA_CHECK(writeFrom(*direction));
        } else if (direction->from >= 0 && revents(entries, direction->from) != 0) {
            ARCA_CHECK(readInto(*direction));
        }
    }
    return {};
}

Result<> Relay::readInto(Direction& direction) const {
    const ssize_t n = ::read(direction.from, direction.buffer.data(), direction.buffer.size());
    if (n > 0) {
        direction.begin = 0;
        direction.end = direction.to >= 0 ? static_cast<size_t>(n) : 0;
        return {};
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    // EIO: nobody has the other side of the terminal open any more. The end of our input closes
    // nothing: a program with a terminal learns of it by what is typed.
    if (n < 0 && errno != EIO) return failErrno("read for the terminal");
    direction.from = -1;
    return {};
}

Result<> Relay::writeFrom(Direction& direction) const {
    // Ready for writing means room for PIPE_BUF bytes, which is the size of the buffer: this does
    // not block although our stdout is in blocking mode.
    const ssize_t n = ::write(direction.to, direction.buffer.data() + direction.begin,
                              direction.end - direction.begin);
    if (n >= 0) {
        direction.begin += static_cast<size_t>(n);
        return {};
    }
    if (errno == EINTR || errno == EAGAIN) return {};
    // A reader that has gone must not stop the program: what it prints is dropped from here on.
    if (errno != EPIPE && errno != EIO) return failErrno("write for the terminal");
    direction.begin = direction.end;
    direction.to = -1;
    return {};
}

Result<> Relay::drain() {
    constexpr int kSilenceMs = 200;
    while (down_.from >= 0 || !down_.empty()) {
        pollfd entry{down_.from, POLLIN, 0};
        // Who does not read may do so for as long as he likes; his output is not thrown away.
        int wait_ms = kSilenceMs;
        if (!down_.empty()) {
            entry = {down_.to, POLLOUT, 0};
            wait_ms = -1;
        }
        const int n = ::poll(&entry, 1, wait_ms);
        if (n < 0 && errno != EINTR) return failErrno("poll");
        // Silence: some process that is not ours to wait for still holds the terminal.
        if (n == 0) return {};
        if (n > 0) ARCA_CHECK(down_.empty() ? readInto(down_) : writeFrom(down_));
    }
    return {};
}

}  // namespace arca::runtime
