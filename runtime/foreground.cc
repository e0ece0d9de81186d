#include "runtime/foreground.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "base/log.h"

namespace arca::runtime {
namespace {

using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr int kLongWaitMs = 1000;

// Reaps what has ended; the exit code when `pid` is among it.
Result<std::optional<int>> reap(pid_t pid, bool all) {
    std::optional<int> code;
    while (true) {
        int status = 0;
        const pid_t ended = ::waitpid(all ? -1 : pid, &status, WNOHANG | __WALL);
        if (ended < 0 && errno == EINTR) continue;
        if (ended < 0 && !(errno == ECHILD && code)) {
            return failErrno("wait for process " + std::to_string(pid));
        }
        if (ended <= 0) return code;
        if (ended == pid) {
            code = base::exitCodeFromWaitStatus(status);
            if (!all) return code;
        }
    }
}

class Waiter {
 public:
    Waiter(const ForegroundJob& job, const SignalInbox& signals, UniqueFd pidfd)
        : job_(job), signals_(signals), pidfd_(std::move(pidfd)) {}

    Result<int> wait(HostTerminal* host, Relay* relay) {
        bool long_wait = false;
        while (true) {
            ARCA_TRY(const std::optional<int> code, reap(job_.process.pid, job_.adopt_orphans));
            if (code) {
                const Result<> drained = relay == nullptr ? Result<>() : relay->drain();
                if (!drained) base::log::warning(drained.error().message());
                return *code;
            }
            const int notify_fd = job_.notify == nullptr ? -1 : job_.notify->fd();
            std::vector<pollfd> entries{{signals_.fd(), POLLIN, 0}, {notify_fd, POLLIN, 0}};
            if (relay != nullptr) relay->addTo(entries);
            const int n = ::poll(entries.data(), entries.size(), long_wait ? -1 : kLongWaitMs);
            if (n < 0 && errno != EINTR) return failErrno("poll");
            if (n == 0) {
                long_wait = true;
                if (job_.on_long_wait) job_.on_long_wait();
            }
            if (n <= 0) continue;
            if (entries[1].revents != 0) passReadiness();
            if (relay != nullptr) ARCA_CHECK(relay->process(entries));
            while (const std::optional<int> number = signals_.next()) handle(*number, host);
        }
    }

 private:
    void passReadiness() {
        // This process itself is the service manager's main process: no other is named.
        const auto passed = job_.notify->receive(0);
        if (!passed) base::log::warning(passed.error().message());
    }

    void handle(int number, HostTerminal* host) {
        if (number == SIGWINCH && host != nullptr) {
            const auto resized = host->copySizeTo(job_.terminal.get());
            if (!resized) base::log::debug(resized.error().message());
        }
        if (!isForwarded(number)) return;
        // It may have ended meanwhile; then the next round sees that.
        const auto sent = base::sendSignal(pidfd_.get(), number);
        if (!sent) base::log::debug(sent.error().message());
    }

    const ForegroundJob& job_;
    const SignalInbox& signals_;
    UniqueFd pidfd_;
};

}  // namespace

Result<> prepareTerminal(const ForegroundJob& job) {
    if (!job.terminal.valid()) return {};
    ARCA_TRY(const HostTerminal host, HostTerminal::open());
    return host.copySizeTo(job.terminal.get());
}

Result<int> waitInForeground(const ForegroundJob& job, const SignalInbox& signals) {
    ARCA_TRY(UniqueFd pidfd, base::openPidfd(job.process.pid));
    if (job.adopt_orphans && ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
        return failErrno("become a subreaper");
    }
    Waiter waiter(job, signals, std::move(pidfd));
    if (!job.terminal.valid()) return waiter.wait(nullptr, nullptr);
    ARCA_TRY(HostTerminal host, HostTerminal::open());
    ARCA_TRY(Relay relay, Relay::make(STDIN_FILENO, STDOUT_FILENO, job.terminal.get()));
    ARCA_CHECK(host.setRaw());
    return waiter.wait(&host, &relay);
}

}  // namespace arca::runtime
