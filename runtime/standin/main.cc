// arca-standin: the host's process for a container process in a VM.
//
//   arca-standin --lease-fd N [--ready-fd N] [--log-fd N] [--terminal] [--unshare FLAGS]
//                [--join-fd N]... [--title TEXT]
//
// To --ready-fd goes one byte once it is in its namespaces, or the text of what went wrong.
//
// Its pid stands in the pid-file and in `state`; engines signal it, look up its namespaces and
// cgroup, and learn of the container's end by reaping it. It forwards signals and window sizes over
// the lease socket and leaves with the exit code that the monitor sends (proto/lease_protocol.h).
// It is forked by the CLI, so that it becomes the caller's child, and held for as long as the
// container lives: hence no C++ library, no heap, no threads.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "proto/lease_protocol.h"

namespace {

using arca::proto::kLostExitCode;
using arca::proto::LeaseMessage;
using arca::proto::LeasePacket;

constexpr int kMaxJoins = 8;

struct Options {
    int lease_fd = -1;
    int ready_fd = -1;
    int log_fd = -1;
    bool terminal =
        false;  // descriptors 0-2 are the terminal's slave: it becomes the controlling terminal
    int unshare_flags = 0;
    int join_fds[kMaxJoins] = {};
    int joins = 0;
};

[[noreturn]] void die(const Options& options, const char* what, int code) {
    const char* reason = errno != 0 ? ::strerrordesc_np(errno) : nullptr;
    char line[256] = "arca-standin: ";
    ::strncat(line, what, sizeof line - std::strlen(line) - 2);
    if (reason != nullptr) {
        ::strncat(line, ": ", sizeof line - std::strlen(line) - 2);
        ::strncat(line, reason, sizeof line - std::strlen(line) - 2);
    }
    ::strncat(line, "\n", sizeof line - std::strlen(line) - 1);
    const bool ready = options.ready_fd < 0;
    const int fd = !ready ? options.ready_fd : options.log_fd >= 0 ? options.log_fd : STDERR_FILENO;
    const size_t length = std::strlen(line) - (ready ? 0 : 1);  // a message has no line end
    [[maybe_unused]] const ssize_t n = ::write(fd, line, length);
    ::_exit(code);
}

int number(const Options& options, const char* text) {
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || value < 0 || value > INT32_MAX) {
        errno = EINVAL;
        die(options, text, 2);
    }
    return static_cast<int>(value);
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--terminal") == 0) {
            options.terminal = true;
            continue;
        }
        errno = EINVAL;
        if (i + 1 >= argc) die(options, argv[i], 2);
        const char* name = argv[i];
        const char* value = argv[++i];
        if (std::strcmp(name, "--lease-fd") == 0) {
            options.lease_fd = number(options, value);
        } else if (std::strcmp(name, "--ready-fd") == 0) {
            options.ready_fd = number(options, value);
        } else if (std::strcmp(name, "--log-fd") == 0) {
            options.log_fd = number(options, value);
        } else if (std::strcmp(name, "--unshare") == 0) {
            options.unshare_flags = number(options, value);
        } else if (std::strcmp(name, "--join-fd") == 0 && options.joins < kMaxJoins) {
            options.join_fds[options.joins++] = number(options, value);
        } else if (std::strcmp(name, "--title") != 0) {  // for ps only
            die(options, name, 2);
        }
    }
    errno = EINVAL;
    if (options.lease_fd < 3) die(options, "--lease-fd is missing", 2);
    return options;
}

// Nothing of the caller's stays open: its pipes reach end of file when the container's streams do.
void keepOnly(const Options& options, int signal_fd) {
    for (unsigned fd = 3; fd < 1024; ++fd) {
        const int number = static_cast<int>(fd);
        if (number == options.lease_fd || number == options.log_fd || number == signal_fd ||
            number == options.ready_fd) {
            continue;
        }
        (void)::close(number);
    }
    (void)::syscall(SYS_close_range, 1024U, ~0U, 0U);
}

bool send(const Options& options, LeaseMessage type, uint32_t a, uint32_t b) {
    const LeasePacket packet{type, a, b};
    ssize_t n = 0;
    do {
        n = ::send(options.lease_fd, &packet, sizeof packet, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == static_cast<ssize_t>(sizeof packet);
}

void forwardSignal(const Options& options, const signalfd_siginfo& info) {
    if (info.ssi_signo != SIGWINCH) {
        if (!send(options, LeaseMessage::kSignal, info.ssi_signo, 0)) {
            die(options, "the sandbox's monitor is gone", kLostExitCode);
        }
        return;
    }
    winsize size{};
    if (!options.terminal || ::ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) return;
    if (!send(options, LeaseMessage::kResize, size.ws_row, size.ws_col)) {
        die(options, "the sandbox's monitor is gone", kLostExitCode);
    }
}

// One packet of the monitor's. End of file: it has died.
void obey(const Options& options) {
    LeasePacket packet{};
    ssize_t n = 0;
    do {
        n = ::recv(options.lease_fd, &packet, sizeof packet, 0);
    } while (n < 0 && errno == EINTR);
    if (n != static_cast<ssize_t>(sizeof packet)) {
        errno = 0;
        die(options, "the sandbox's monitor is gone", kLostExitCode);
    }
    if (packet.type == LeaseMessage::kExit) ::_exit(static_cast<int>(packet.a & 0xffU));
    if (packet.type == LeaseMessage::kLost) {
        errno = 0;
        die(options, "the sandbox is gone", kLostExitCode);
    }
}

}  // namespace

int main(int argc, char** argv) {
    Options options = parse(argc, argv);
    // The caller may run us with a parent-death signal; the container outlives the CLI.
    (void)::prctl(PR_SET_PDEATHSIG, 0);
    (void)::setsid();
    for (int i = 0; i < options.joins; ++i) {
        if (::setns(options.join_fds[i], 0) != 0) die(options, "join a namespace", 1);
    }
    if (options.unshare_flags != 0 && ::unshare(options.unshare_flags) != 0) {
        die(options, "make namespaces", 1);
    }
    if (options.terminal && ::ioctl(STDIN_FILENO, TIOCSCTTY, 0) != 0) {
        die(options, "take the controlling terminal", 1);
    }
    // Every signal that can be caught is the guest process's, but for those about ourselves.
    sigset_t forwarded;
    (void)::sigfillset(&forwarded);
    for (const int own :
         {SIGCHLD, SIGPIPE, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT}) {
        (void)::sigdelset(&forwarded, own);
    }
    (void)::signal(SIGPIPE, SIG_IGN);
    (void)::sigprocmask(SIG_SETMASK, &forwarded, nullptr);
    const int signal_fd = ::signalfd(-1, &forwarded, SFD_CLOEXEC);
    if (signal_fd < 0) die(options, "signalfd", 1);
    keepOnly(options, signal_fd);
    // A working directory in the bundle would keep it from being unmounted.
    if (::chdir("/") != 0) die(options, "chdir /", 1);
    if (options.ready_fd >= 0) {
        const int fd = options.ready_fd;
        options.ready_fd = -1;
        if (::write(fd, "", 1) != 1) die(options, "report", 1);
        (void)::close(fd);
    }

    while (true) {
        pollfd entries[2] = {{options.lease_fd, POLLIN, 0}, {signal_fd, POLLIN, 0}};
        if (::poll(entries, 2, -1) < 0) continue;
        // The exit first: a signal for a process that has ended concerns nobody.
        if (entries[0].revents != 0) obey(options);
        if (entries[1].revents != 0) {
            signalfd_siginfo info{};
            if (::read(signal_fd, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
                forwardSignal(options, info);
            }
        }
    }
}
