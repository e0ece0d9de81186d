#include "vmexec/signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace arca::vmexec {
namespace {

using base::failErrno;
using base::Result;
using base::UniqueFd;

// All whose default action ends the process, but for faults (blocked, they would kill all the same)
// and SIGKILL. Source: signal(7).
sigset_t endingSignals() {
    sigset_t set;
    (void)::sigfillset(&set);
    for (const int keep : {SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU,
                           SIGKILL, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT}) {
        (void)::sigdelset(&set, keep);
    }
    return set;
}

}  // namespace

void takeOverSignals() {
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; ++number) (void)::sigaction(number, &plain, nullptr);
    const sigset_t set = endingSignals();
    (void)::sigprocmask(SIG_SETMASK, &set, nullptr);
}

void releaseSignals() {
    sigset_t none;
    (void)::sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
}

Result<UniqueFd> openSignalFd() {
    const sigset_t set = endingSignals();
    UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC));
    if (!fd.valid()) return failErrno("signalfd");
    return fd;
}

Result<> waitReadableOrDie(int fd, int signal_fd) {
    while (true) {
        std::array<pollfd, 2> entries{pollfd{fd, POLLIN, 0}, pollfd{signal_fd, POLLIN, 0}};
        if (::poll(entries.data(), entries.size(), -1) < 0) {
            if (errno == EINTR) continue;
            return failErrno("poll");
        }
        if (entries[1].revents != 0) {
            signalfd_siginfo info{};
            if (::read(signal_fd, &info, sizeof info) == sizeof info) {
                ::_exit(128 + static_cast<int>(info.ssi_signo));
            }
        }
        if (entries[0].revents != 0) return {};
    }
}

}  // namespace arca::vmexec
