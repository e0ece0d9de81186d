// Hooks that the agent runs, and the services among them.
#include <signal.h>

#include <utility>

#include "base/log.h"
#include "spec/version.h"
#include "vminitd/agent.h"
#include "vminitd/guest_hooks.h"
#include "vminitd/supervisor.h"

namespace arca::vminitd {

using base::Code;
using base::Error;
using base::Result;

Result<> Agent::collectHooks(Container& container, spec::Spec& spec) {
    ARCA_CHECK(config_.hooks->addFromFolder(spec));
    if (!hasService(spec.hooks)) return {};
    ARCA_TRY(container.record.service_cgroups,
             cgroups_.locate(config_.hooks->serviceCgroup(container.id)));
    for (CgroupDir& dir : container.record.service_cgroups) dir.made = true;
    return {};
}

// Where the agent runs hooks, a command has left out those that are its own to run.
void Agent::prepareHooks(Container& container, const spec::Spec& spec, BodyRequest& body) {
    const spec::Hooks& hooks = spec.hooks;
    if (body.state.bundle.empty()) body.state.bundle = config_.state_root + "/" + container.id;
    body.hooks.prestart = hooks.prestart;
    body.hooks.createRuntime = hooks.createRuntime;
    container.poststart = hooks.poststart;
    container.poststop = hooks.poststop;
    container.hook_state = body.state;
    const bool before = !hooks.prestart.empty() || !hooks.createRuntime.empty();
    container.had_create_hooks = before || !hooks.createContainer.empty();
    container.had_start_hooks = !hooks.startContainer.empty();
    // They may use any driver.
    if (before) body.drivers = DriverNeed{};
    container.services =
        config_.hooks->makeGroup(container.id, hooks, container.record.service_cgroups);
    if (!container.services) return;
    container.services->onEnd(
        [this, raw = &container](const ServiceEnd& end) { serviceEnded(*raw, end); });
    body.services = container.services;
}

// Until 1.2 of the specification a poststart hook that fails is a warning and the others run; since
// 1.3 it ends the container. Source: runtime.md, "Lifecycle", step 9, of either version.
void Agent::runPoststart(const ContainerPtr& container, Reply<pid_t> reply) {
    const pid_t pid = container->init->identity().pid;
    HookList list{"poststart", std::exchange(container->poststart, {})};
    if (config_.hooks == nullptr || list.hooks.empty()) return reply(pid);
    container->hook_state.status = "running";
    container->hook_state.pid = pid;
    if (!spec::versionAtLeast(container->hook_state.ociVersion, 1, 3)) {
        return config_.hooks->runAll(std::move(list), container->hook_state,
                                     [pid, reply = std::move(reply)] { reply(pid); });
    }
    config_.hooks->run({.lists = {std::move(list)}, .state = container->hook_state},
                       [this, container, pid, reply = std::move(reply)](Result<> ran) {
                           if (ran) return reply(pid);
                           destroyAfterHook(container, ran.error(), [reply](Error error) {
                               reply(base::fail(std::move(error)));
                           });
                       });
}

void Agent::runPoststop(const ContainerPtr& container, Reply<> reply) {
    HookList list{"poststop", std::exchange(container->poststop, {})};
    if (config_.hooks == nullptr || list.hooks.empty()) return reply({});
    container->hook_state.status = "stopped";
    container->hook_state.pid = 0;
    config_.hooks->runAll(std::move(list), container->hook_state, [reply] { reply({}); });
}

void Agent::destroyAfterHook(const ContainerPtr& container, const Error& error,
                             std::function<void(Error)> reply) {
    // Somebody else is at it, and tells whoever asked him.
    if (container->being_deleted) return reply(error);
    if (container->init->pidfd() >= 0) (void)base::sendSignal(container->init->pidfd(), SIGKILL);
    const auto killed = cgroups_.killAll(container->record.cgroups);
    if (!killed) base::log::warning("kill after a failed hook: " + killed.error().message());
    removeContainer(container, Removal::kAll, [error, reply = std::move(reply)](Result<> removed) {
        if (removed) return reply(error);
        reply({error.code(), error.message() + "; and " + removed.error().message()});
    });
}

// ---- services ----

void Agent::stopServices(const ContainerPtr& container, Reply<> reply) {
    const auto remove = [this, container, reply = std::move(reply)] {
        const CgroupDirs& dirs = container->record.service_cgroups;
        removeServiceCgroup(loop_, cgroups_, dirs, [this, container, reply](Result<> removed) {
            const bool had_some = !container->record.service_cgroups.empty();
            if (removed && had_some && config_.hooks != nullptr) {
                // The last container takes what they have in common along.
                const std::string common = config_.hooks->serviceCgroup("");
                for (const CgroupDir& dir : cgroups_.directories(common)) {
                    (void)cgroup_fs_.removeDir(dir.path);
                }
            }
            reply(std::move(removed));
        });
    };
    container->being_deleted = true;
    if (container->services) return container->services->stop(remove);
    remove();
}

void Agent::serviceEnded(Container& container, const ServiceEnd& end) {
    base::log::warning("service " + end.name + " of " + container.id + " has ended: " + end.reason);
    if (end.kills) {
        container.end_reason = "its service " + end.name + " has ended: " + end.reason;
        const CgroupDirs& dirs = container.record.cgroups;
        if (container.init->pidfd() >= 0) {
            (void)base::sendSignal(container.init->pidfd(), SIGKILL);
        }
        // Before it is made nothing else is known of it; without a pid namespace of its own nothing
        // else ends the rest.
        if (container.being_made || !container.record.own_pid_namespace) {
            const auto killed = cgroups_.killAll(dirs);
            if (!killed) base::log::warning(killed.error().message());
        } else if (isFrozen(container)) {
            // A frozen process takes the signal only once it is thawed.
            (void)cgroups_.setFrozen(dirs, false);
        }
    }
    const auto watchers = container.service_watchers;
    for (const auto& [token, ended] : watchers) ended(end);
}

Result<uint64_t> Agent::watchServices(const std::string& container_id,
                                      std::function<void(const ServiceEnd&)> ended) {
    ARCA_TRY(const ContainerPtr container, find(container_id));
    if (container->services) {
        for (const ServiceEnd& end : container->services->ends()) ended(end);
    }
    const uint64_t token = next_service_watch_++;
    container->service_watchers.emplace(token, std::move(ended));
    return token;
}

void Agent::forgetServiceWatch(const std::string& container_id, uint64_t token) {
    const auto found = containers_.find(container_id);
    if (found != containers_.end()) found->second->service_watchers.erase(token);
}

// Whoever has given up the create does not wait for a hook that hangs or a service that is not
// ready: with the process and the services the making fails, and takes everything along.
void Agent::deleteUnfinished(const ContainerPtr& container, Reply<> reply) {
    container->deletions.push_back(std::move(reply));
    if (container->services) container->services->stop([] {});
    const auto killed = cgroups_.killAll(container->record.cgroups);
    if (!killed) base::log::warning("kill before delete: " + killed.error().message());
}

}  // namespace arca::vminitd
