// Reaps the agent's children in a VM, and everything that is orphaned there.
//
// Children that other threads have forked (hooks, see base/subprocess.h) are theirs: only those of
// the main thread are waited for, to which orphans come too. So a Supervisor is used on the main
// thread, where the loop runs and bodies are forked, and nowhere else.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vminitd/event_loop.h"
#include "vminitd/process.h"

namespace arca::vminitd {

class Supervisor {
 public:
    using Handler = std::function<void(const ExitStatus&)>;

    // SIGCHLD must be blocked, in every thread that there is or will be.
    static base::Result<std::unique_ptr<Supervisor>> make(EventLoop& loop);

    // Calls `handler` at the end of child `pid`, which must not have been reaped yet. While it runs
    // the pid is still the child's own.
    void expect(pid_t pid, Handler handler) { handlers_[pid] = std::move(handler); }
    void forget(pid_t pid) { handlers_.erase(pid); }

    // Whether there are children, dead or alive.
    [[nodiscard]] static bool hasChildren();

 private:
    explicit Supervisor(EventLoop& loop) : loop_(loop) {}
    void reap();

    EventLoop& loop_;
    base::UniqueFd signals_;
    Watch watch_;
    Timer again_;
    std::map<pid_t, Handler> handlers_;
};

}  // namespace arca::vminitd
