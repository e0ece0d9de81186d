// Hooks that the agent runs itself, in the VM's own namespaces: those of configurations that a host
// has sent straight to it or has moved here, and those of hooks.d.
//
// Each hook has a thread of its own, for it may take its time; its children are that thread's, so
// that the supervisor leaves them alone. Services are started from the loop. Loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "hooks/hook_runner.h"
#include "spec/spec.h"
#include "spec/state.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"
#include "vminitd/service_group.h"

namespace arca::vminitd {

struct HookList {
    std::string kind;  // "prestart", ...
    std::vector<spec::Hook> hooks;
};

struct HookRun {
    std::vector<HookList> lists;
    spec::State state;                         // its pid: of a process that is there
    std::shared_ptr<ServiceGroup> services{};  // where services are started; null: there are none
    // Set when there is no use in going on: what is running ends, what comes after is left out.
    std::shared_ptr<const bool> cancelled{};
};

class GuestHooks {
 public:
    struct Config {
        // cgroup.procs of a cgroup for hooks, so that they do not use up what is the agent's own;
        // empty: they stay in it.
        std::string cgroup_procs;
        std::string folder;  // hooks.d; empty: none
    };

    // What is passed must outlive the hooks.
    GuestHooks(const ServiceHost& services, Config config)
        : services_(services), config_(std::move(config)) {}

    // Appends the hooks of hooks.d that are for `spec` to its lists. kFailedPrecondition names the
    // file that is wrong; kInvalidArgument when two services have the same name.
    base::Result<> addFromFolder(spec::Spec& spec) const;

    // For a container with services among its hooks, in the cgroup of serviceCgroup(); else null.
    [[nodiscard]] std::shared_ptr<ServiceGroup> makeGroup(const std::string& container_id,
                                                          const spec::Hooks& hooks,
                                                          const CgroupDirs& cgroup) const;
    // Where the services of a container are, below the cgroups' root.
    [[nodiscard]] std::string serviceCgroup(const std::string& container_id) const {
        return services_.cgroup_prefix + "/" + container_id;
    }

    // Runs all of its lists in order up to the first hook that fails; then calls `done` on the
    // loop, with kInternal and the hook's words when one has.
    void run(HookRun run, std::function<void(base::Result<>)> done) const;
    // Runs all of `list` whatever happens; failures are logged.
    void runAll(HookList list, const spec::State& state, std::function<void()> done) const;

 private:
    [[nodiscard]] hooks::HookContext contextFor(const spec::State& state) const;

    const ServiceHost& services_;
    const Config config_;
};

// Whether `hooks` has a service.
bool hasService(const spec::Hooks& hooks);

}  // namespace arca::vminitd
