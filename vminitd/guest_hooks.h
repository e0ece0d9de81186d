// Hooks that the agent runs itself, in the VM's own namespaces: those of configurations that a host
// has sent straight to it. (The hooks of a bundle are run on the host by the command.)
//
// Each run has a thread of its own, for a hook may take its time; its children are that thread's,
// so that the supervisor leaves them alone. Loop thread only, but for what is said.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"
#include "spec/state.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

struct HookList {
    std::string kind;  // "prestart", ...
    std::vector<spec::Hook> hooks;
};

class GuestHooks {
 public:
    // `cgroup_procs`: of a cgroup for hooks, so that they do not use up what is the agent's own;
    // empty: they stay in it. What is passed must outlive the hooks.
    GuestHooks(EventLoop& loop, const Environment& environment, std::string cgroup_procs)
        : loop_(loop), environment_(environment), cgroup_procs_(std::move(cgroup_procs)) {}

    // Runs all of `lists` in order up to the first that fails; then calls `done` on the loop, with
    // kInternal and the hook's words when one has.
    void run(std::vector<HookList> lists, const spec::State& state,
             std::function<void(base::Result<>)> done);
    // Runs all of `list` whatever happens; failures are logged.
    void runAll(HookList list, const spec::State& state, std::function<void()> done);

 private:
    EventLoop& loop_;
    const Environment& environment_;
    const std::string cgroup_procs_;
};

}  // namespace arca::vminitd
