#include "vminitd/agent.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "base/files.h"
#include "base/ids.h"
#include "base/log.h"
#include "spec/parse.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using base::UniqueFd;

ExecBase makeExecBase(spec::Spec spec, SeccompProgram seccomp) {
    spec.mounts.clear();
    spec.hooks = {};
    spec.process.reset();
    if (spec.linux.seccomp) spec.linux.seccomp->syscalls.clear();
    return ExecBase{std::move(spec), std::move(seccomp)};
}

Agent::Agent(EventLoop& loop, CgroupManager& cgroups, CgroupFs& cgroup_fs, BodySource& bodies,
             Config config, UniqueFd state_root)
    : loop_(loop),
      cgroups_(cgroups),
      cgroup_fs_(cgroup_fs),
      bodies_(bodies),
      config_(std::move(config)),
      state_root_(std::move(state_root)),
      resctrl_(cgroup_fs, config_.resctrl_root) {}

std::string Agent::recordFolder(const std::string& id) const {
    return config_.record_folder.empty() ? id : id + "/" + config_.record_folder;
}

Result<ContainerPtr> Agent::lookUp(const std::string& id) {
    const auto found = containers_.find(id);
    if (found != containers_.end()) {
        const ContainerPtr container = found->second;
        if (container->being_made || container->being_deleted) return container;
        if (stampOf(container->folder.get(), kInitFile) == container->stamp) return container;
        // Somebody else removed or replaced the record: what we remember is not it any more.
        for (const auto& [exec_id, process] : container->execs) linger(process);
        linger(container->init);
        containers_.erase(found);
    }
    return load(id);
}

Result<ContainerPtr> Agent::find(const std::string& id) {
    ARCA_CHECK(base::validateId(id));
    ARCA_TRY(ContainerPtr container, lookUp(id));
    if (!container) return base::fail(Code::kNotFound, "container " + id + " not found");
    return container;
}

Result<ContainerPtr> Agent::load(const std::string& id) {
    const std::string folder_name = recordFolder(id);
    auto folder = base::openAt(state_root_.get(), folder_name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!folder) {
        if (folder.error().sysErrno() == ENOENT) return ContainerPtr();
        return base::fail(std::move(folder).error());
    }
    auto container = std::make_shared<Container>();
    container->id = id;
    container->folder = std::move(*folder);
    container->stamp = stampOf(container->folder.get(), kInitFile);
    // A folder without a record: its making was cut short before anything was done.
    if (!container->stamp) return ContainerPtr();
    const std::string shown = config_.state_root + "/" + folder_name + "/" + kInitFile;
    auto text = base::readFile(kInitFile, size_t{1} << 20U, container->folder.get());
    if (!text) return base::fail(std::move(text).error().withContext(shown));
    auto record = parseContainerRecord(*text);
    if (record && record->init.id != id) record = base::fail(Code::kInternal, "broken record");
    if (!record) return base::fail(std::move(record).error().withContext(shown));
    container->record = std::move(*record);
    container->init = Process::adopt(loop_, container->record.init,
                                     probeGate(container->folder.get(), kGateSocket));
    recordExits(container, container->init, true);
    containers_.emplace(id, container);
    return container;
}

Result<std::shared_ptr<Process>> Agent::findProcess(const ContainerPtr& container,
                                                    const std::string& id) {
    if (id == container->id) return container->init;
    const auto found = container->execs.find(id);
    if (found != container->execs.end()) return found->second;
    const std::string stem = std::string(kExecsFolder) + "/" + execFileStem(id);
    auto text = base::readFile(stem + ".json", size_t{1} << 20U, container->folder.get());
    if (!text) {
        if (text.error().sysErrno() == ENOENT) {
            return base::fail(Code::kFailedPrecondition,
                              "exec " + id + " does not exist in container " + container->id);
        }
        return base::fail(std::move(text).error());
    }
    auto record = parseProcessRecord(*text);
    if (!record) {
        return base::fail(std::move(record).error().withContext(
            config_.state_root + "/" + recordFolder(container->id) + "/" + stem + ".json"));
    }
    auto process =
        Process::adopt(loop_, *record, probeGate(container->folder.get(), stem + ".sock"));
    recordExits(container, process, false);
    container->execs.emplace(id, process);
    return process;
}

Result<Agent::Found> Agent::findByKey(const ProcessKey& key) {
    ARCA_CHECK(checkKey(key));
    Found found;
    ARCA_TRY(found.container, find(*key.container_id));
    ARCA_TRY(found.process, findProcess(found.container, key.id));
    found.is_init = key.id == found.container->id;
    return found;
}

Result<> Agent::writeRecord(Container& container) {
    container.record.init = container.init->record();
    ARCA_CHECK(base::replaceFile(container.folder.get(), kInitFile,
                                 writeContainerRecord(container.record)));
    container.stamp = stampOf(container.folder.get(), kInitFile);
    return {};
}

Result<> Agent::writeExecRecord(const Container& container, const Process& process) {
    ARCA_TRY(const UniqueFd execs,
             base::openAt(container.folder.get(), kExecsFolder, O_PATH | O_DIRECTORY));
    return base::replaceFile(execs.get(), execFileStem(process.id()) + ".json",
                             writeProcessRecord(process.record()));
}

void Agent::recordExits(const ContainerPtr& container, const std::shared_ptr<Process>& process,
                        bool is_init) {
    const std::weak_ptr<Container> weak_container = container;
    const std::weak_ptr<Process> weak_process = process;
    process->onExitLearned([this, weak_container, weak_process, is_init] {
        const auto owner = weak_container.lock();
        const auto ended = weak_process.lock();
        if (!owner || !ended || owner->being_deleted) return;
        auto written = is_init ? writeRecord(*owner) : writeExecRecord(*owner, *ended);
        if (!written) base::log::warning("cannot record an exit: " + written.error().message());
    });
}

Result<ExecBase*> Agent::execBase(Container& container) {
    if (container.exec_base) return container.exec_base.get();
    const std::string shown =
        config_.state_root + "/" + recordFolder(container.id) + "/" + kConfigFile;
    auto text = base::readFile(kConfigFile, spec::kMaxConfigBytes, container.folder.get());
    if (!text) return base::fail(std::move(text).error().withContext(shown));
    auto parsed = spec::parseSpec(*text, spec::Source::kWire);
    if (!parsed) return base::fail(std::move(parsed).error().withContext(shown));
    SeccompProgram seccomp;
    if (parsed->linux.seccomp) {
        ARCA_TRY(seccomp, seccomp_.get(*parsed->linux.seccomp));
    }
    container.exec_base =
        std::make_unique<ExecBase>(makeExecBase(std::move(*parsed), std::move(seccomp)));
    return container.exec_base.get();
}

bool Agent::isFrozen(const Container& container) {
    const auto state = cgroups_.freezeState(container.record.cgroups);
    return state && *state != FreezeState::kThawed;
}

void Agent::linger(const std::shared_ptr<Process>& process) {
    if (!process || !process->hasExitHandlers()) return;
    lingering_[process.get()] = process;
    // Let go once its last waiter has been told. By a task: this runs inside the process.
    process->onExit([this, raw = process.get()](const Result<ExitStatus>&) {
        loop_.post([this, raw] { lingering_.erase(raw); });
    });
}

}  // namespace arca::vminitd
