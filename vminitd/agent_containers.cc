// The extension's calls about a whole container: state, processes, pause, limits.
#include <fcntl.h>

#include <optional>
#include <utility>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/ids.h"
#include "base/log.h"
#include "spec/parse.h"
#include "spec/write.h"
#include "vminitd/agent.h"
#include "vminitd/rootless_cgroups.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::chrono::milliseconds kFreezeLimit{5'000};

bool isAlive(Container& container) {
    const ProcessStatus status = container.init->status();
    return status == ProcessStatus::kCreated || status == ProcessStatus::kRunning;
}

// `changed` over `now`, member by member: what an update leaves out stays.
template <typename T>
void take(std::optional<T>& now, const std::optional<T>& changed) {
    if (changed) now = changed;
}

void merge(spec::Resources& now, const spec::Resources& changed) {
    if (changed.memory) {
        if (!now.memory) now.memory.emplace();
        take(now.memory->limit, changed.memory->limit);
        take(now.memory->reservation, changed.memory->reservation);
        take(now.memory->swap, changed.memory->swap);
        take(now.memory->swappiness, changed.memory->swappiness);
        take(now.memory->disableOOMKiller, changed.memory->disableOOMKiller);
    }
    if (changed.cpu) {
        if (!now.cpu) now.cpu.emplace();
        take(now.cpu->shares, changed.cpu->shares);
        take(now.cpu->quota, changed.cpu->quota);
        take(now.cpu->burst, changed.cpu->burst);
        take(now.cpu->period, changed.cpu->period);
        take(now.cpu->realtimeRuntime, changed.cpu->realtimeRuntime);
        take(now.cpu->realtimePeriod, changed.cpu->realtimePeriod);
        take(now.cpu->idle, changed.cpu->idle);
        if (!changed.cpu->cpus.empty()) now.cpu->cpus = changed.cpu->cpus;
        if (!changed.cpu->mems.empty()) now.cpu->mems = changed.cpu->mems;
    }
    take(now.pidsLimit, changed.pidsLimit);
    if (changed.blockIO) now.blockIO = changed.blockIO;
    if (!changed.hugepageLimits.empty()) now.hugepageLimits = changed.hugepageLimits;
    if (changed.network) now.network = changed.network;
    for (const auto& [name, limit] : changed.rdma) now.rdma[name] = limit;
    for (const auto& [file, value] : changed.unified) now.unified[file] = value;
    if (!changed.devices.empty()) now.devices = changed.devices;
}

Result<> withoutCgroup(const Container& container) {
    return base::fail(Code::kFailedPrecondition, "container " + container.id +
                                                     " has no cgroup of its own: it was created "
                                                     "with the cgroup manager disabled");
}

}  // namespace

Result<std::vector<pid_t>> Agent::listProcesses(const std::string& container_id) {
    ARCA_TRY(const ContainerPtr container, find(container_id));
    if (!container->record.cgroups.empty()) return cgroups_.processes(container->record.cgroups);
    if (!container->record.own_pid_namespace) {
        return base::fail(Code::kFailedPrecondition,
                          "container " + container_id +
                              " has neither a cgroup nor a pid namespace of its own: its processes "
                              "cannot be told from others");
    }
    if (container->init->status() == ProcessStatus::kStopped) return std::vector<pid_t>{};
    return processesBeside(container->init->identity().pid);
}

Result<std::vector<std::pair<std::string, ContainerStatistics>>> Agent::statistics(
    std::vector<std::string> container_ids, const StatisticsSelection& wanted) {
    const bool asked = !container_ids.empty();
    if (!asked) {
        ARCA_TRY(const UniqueFd root, base::openAt(state_root_.get(), ".", O_RDONLY | O_DIRECTORY));
        ARCA_TRY(container_ids, base::listDir(root.get()));
        std::erase_if(container_ids,
                      [](const std::string& id) { return !base::validateId(id).has_value(); });
    }
    std::vector<std::pair<std::string, ContainerStatistics>> out;
    std::optional<base::Error> unknown;
    for (const std::string& id : container_ids) {
        // One that has gone meanwhile must not keep the others from being seen.
        auto container = find(id);
        if (!container) {
            if (!unknown) unknown = std::move(container).error();
            continue;
        }
        const pid_t pid = isAlive(**container) ? (*container)->init->identity().pid : 0;
        out.emplace_back(id, readStatistics((*container)->record.cgroups, cgroups_.unified(), pid,
                                            wanted, cgroup_fs_));
    }
    if (asked && out.empty()) return base::fail(Code::kInternal, unknown->message());
    return out;
}

Result<ContainerView> Agent::containerState(const std::string& container_id) {
    ARCA_TRY(const ContainerPtr container, find(container_id));
    ContainerView view;
    view.cgroups = container->record.cgroups;
    view.pid = container->init->identity().pid;
    view.end_reason = container->end_reason;
    switch (container->init->status()) {
        case ProcessStatus::kCreating:
            return base::fail(Code::kFailedPrecondition,
                              "container " + container_id + " has not been created yet");
        case ProcessStatus::kCreated:
            view.status = ContainerStatus::kCreated;
            break;
        case ProcessStatus::kRunning:
            view.status = ContainerStatus::kRunning;
            break;
        case ProcessStatus::kStopped:
            view.pid = 0;
            return view;
    }
    if (isFrozen(*container)) view.status = ContainerStatus::kPaused;
    return view;
}

void Agent::setPaused(const std::string& container_id, bool paused, Reply<> reply) {
    auto found = find(container_id);
    if (!found) return reply(base::fail(std::move(found).error()));
    const ContainerPtr container = *found;
    if (!isAlive(*container)) {
        return reply(base::fail(Code::kFailedPrecondition, base::texts::kContainerNotRunning));
    }
    if (container->record.cgroups.empty()) return reply(withoutCgroup(*container));
    if (isFrozen(*container) == paused) {
        return reply(base::fail(Code::kFailedPrecondition, paused
                                                               ? base::texts::kContainerNotRunning
                                                               : base::texts::kContainerNotPaused));
    }
    auto failure = std::make_shared<Result<>>();
    const FreezeState wanted = paused ? FreezeState::kFrozen : FreezeState::kThawed;
    const auto attempt = [this, container, paused, wanted, failure] {
        const CgroupDirs& dirs = container->record.cgroups;
        // Written again each time: v1 can get stuck half-way when a process forks meanwhile.
        *failure = cgroups_.setFrozen(dirs, paused);
        if (!*failure) return true;
        const auto state = cgroups_.freezeState(dirs);
        return state && *state == wanted;
    };
    retryUntil(loop_, kFreezeLimit, attempt,
               [this, container, paused, failure, reply = std::move(reply)](bool reached) {
                   if (!*failure) return reply(std::move(*failure));
                   if (reached) return reply({});
                   // Half frozen is worse than running.
                   if (paused) (void)cgroups_.setFrozen(container->record.cgroups, false);
                   reply(base::fail(Code::kDeadlineExceeded,
                                    "container " + container->id + ": the kernel did not " +
                                        (paused ? "freeze" : "thaw") + " it in time"));
               });
}

Result<> Agent::update(const std::string& container_id, const std::string& resources_json) {
    ARCA_TRY(const ContainerPtr container, find(container_id));
    if (!isAlive(*container)) {
        return base::fail(Code::kFailedPrecondition, base::texts::kContainerNotRunning);
    }
    if (container->record.cgroups.empty()) return withoutCgroup(*container);
    ARCA_TRY(const spec::Resources changed, spec::parseResources(resources_json));
    ARCA_CHECK(cgroups_.update(container->record.cgroups, changed));
    // The recorded configuration follows, for whoever reads it; the kernel has the truth.
    auto text = base::readFile(kConfigFile, spec::kMaxConfigBytes, container->folder.get());
    if (!text) return base::fail(std::move(text).error());
    auto config = spec::parseSpec(*text, spec::Source::kWire);
    if (!config) return base::fail(std::move(config).error().withContext(kConfigFile));
    if (!config->linux.resources) config->linux.resources.emplace();
    merge(*config->linux.resources, changed);
    return base::replaceFile(container->folder.get(), kConfigFile, spec::writeSpec(*config));
}

}  // namespace arca::vminitd
