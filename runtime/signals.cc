#include "runtime/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/signals.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

std::optional<int> readSignal(int fd) {
    signalfd_siginfo info{};
    const ssize_t n = ::read(fd, &info, sizeof info);
    if (n != sizeof info) return std::nullopt;
    return static_cast<int>(info.ssi_signo);
}

}  // namespace

Result<SignalInbox> SignalInbox::open() {
    sigset_t interrupts;
    (void)::sigemptyset(&interrupts);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
        (void)::sigaddset(&interrupts, number);
    }
    sigset_t all;
    (void)::sigfillset(&all);
    for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT}) {
        (void)::sigdelset(&all, number);
    }
    if (::sigprocmask(SIG_BLOCK, &all, nullptr) != 0) return failErrno("block signals");
    UniqueFd interrupt_fd(::signalfd(-1, &interrupts, SFD_CLOEXEC | SFD_NONBLOCK));
    UniqueFd all_fd(::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!interrupt_fd.valid() || !all_fd.valid()) return failErrno("signalfd");
    return SignalInbox(std::move(interrupt_fd), std::move(all_fd));
}

Result<> SignalInbox::checkInterrupt() const {
    const std::optional<int> number = readSignal(interrupts_.get());
    if (!number) return {};
    return fail(Code::kSystem, "interrupted by " + base::signalName(*number), EINTR);
}

std::optional<int> SignalInbox::next() const {
    return readSignal(all_.get());
}

bool isForwarded(int signal_number) {
    return signal_number != SIGCHLD && signal_number != SIGURG && signal_number != SIGWINCH &&
           signal_number != SIGPIPE;
}

void prepareProcess() {
    for (int fd = 0; fd < 3; ++fd) {
        if (::fcntl(fd, F_GETFD) >= 0) continue;
        // Takes the lowest free number, which is this one.
        (void)::open("/dev/null", O_RDWR);  // NOLINT(android-cloexec-open): it is our stdio
    }
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    (void)::sigaction(SIGCHLD, &plain, nullptr);
}

}  // namespace arca::runtime
