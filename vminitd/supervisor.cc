#include "vminitd/supervisor.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/log.h"

namespace arca::vminitd {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// __WALL: children whose end is told by another signal than SIGCHLD.
constexpr int kOwnChildren = WEXITED | __WALL | __WNOTHREAD;
// After so many other handlers get their turn: a container can orphan processes without end.
constexpr int kMostAtOnce = 256;

int exitCode(const siginfo_t& info) {
    constexpr int kSignalled = 128;
    constexpr int kCodeMask = 0xff;
    if (info.si_code == CLD_EXITED) return info.si_status & kCodeMask;
    return kSignalled + info.si_status;
}

}  // namespace

Result<std::unique_ptr<Supervisor>> Supervisor::make(EventLoop& loop) {
    std::unique_ptr<Supervisor> made(new Supervisor(loop));
    sigset_t wanted;
    (void)::sigemptyset(&wanted);
    (void)::sigaddset(&wanted, SIGCHLD);
    made->signals_ = UniqueFd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!made->signals_.valid()) return failErrno("signalfd");
    ARCA_TRY(made->watch_, Watch::make(loop, made->signals_.get(), EPOLLIN,
                                       [raw = made.get()](uint32_t) { raw->reap(); }));
    // For what was inherited with the pid.
    made->again_ = Timer(loop, std::chrono::milliseconds(0), [raw = made.get()] { raw->reap(); });
    return made;
}

bool Supervisor::hasChildren() {
    siginfo_t info{};
    return ::waitid(P_ALL, 0, &info, kOwnChildren | WNOHANG | WNOWAIT) == 0;
}

void Supervisor::reap() {
    // Before looking: a child that ends while we look signals again.
    signalfd_siginfo ignored{};
    while (::read(signals_.get(), &ignored, sizeof ignored) > 0) {
    }
    for (int i = 0; i < kMostAtOnce; ++i) {
        siginfo_t info{};
        if (::waitid(P_ALL, 0, &info, kOwnChildren | WNOHANG | WNOWAIT) != 0) {
            if (errno == EINTR) continue;
            if (errno != ECHILD) base::log::error("waitid: " + base::errnoText(errno));
            return;
        }
        if (info.si_pid == 0) return;
        const ExitStatus status{exitCode(info), wallClockNs()};
        const auto found = handlers_.find(info.si_pid);
        if (found != handlers_.end()) {
            const Handler handler = std::move(found->second);
            handlers_.erase(found);
            handler(status);
        } else {
            base::log::debug("reaped pid=" + std::to_string(info.si_pid) +
                             " code=" + std::to_string(status.code));
        }
        siginfo_t reaped{};
        (void)::waitid(P_PID, static_cast<id_t>(info.si_pid), &reaped, kOwnChildren | WNOHANG);
    }
    again_ = Timer(loop_, std::chrono::milliseconds(0), [this] { reap(); });
}

}  // namespace arca::vminitd
