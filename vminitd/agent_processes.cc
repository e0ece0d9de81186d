// Start, kill, wait, resize, delete.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "spec/parse.h"
#include "spec/state.h"
#include "vminitd/agent.h"
#include "vminitd/cgroup_removal.h"
#include "vminitd/mount_table.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::chrono::milliseconds kCgroupRemovalLimit{2'000};
constexpr std::chrono::milliseconds kUnmountLimit{2'000};
constexpr int kLastSignal = 64;
constexpr uint32_t kMaxTerminalSize = 65535;

std::string gateName(const Process& process, bool is_init) {
    if (is_init) return kGateSocket;
    return std::string(kExecsFolder) + "/" + execFileStem(process.id()) + ".sock";
}

}  // namespace

void Agent::startProcess(const ProcessKey& key, Reply<pid_t> reply) {
    auto found = findByKey(key);
    if (!found) return reply(base::fail(std::move(found).error()));
    const ContainerPtr container = found->container;
    const std::shared_ptr<Process> process = found->process;
    const auto refuse = [&](const char* text) {
        reply(base::fail(Code::kFailedPrecondition, text));
    };
    switch (process->status()) {
        case ProcessStatus::kCreating:
            return refuse("the process has not been created yet");
        case ProcessStatus::kRunning:
            return refuse(base::texts::kStartRunning);
        case ProcessStatus::kStopped:
            if (container->end_reason.empty()) return refuse(base::texts::kStartStopped);
            return refuse((base::texts::kStartStopped + ("; " + container->end_reason)).c_str());
        case ProcessStatus::kCreated:
            break;
    }
    if (process->starting) return refuse(base::texts::kStartRunning);
    if (isFrozen(*container)) return refuse(base::texts::kStartPaused);
    process->starting = true;
    const std::string gate = gateName(*process, found->is_init);
    StartRequest start;
    start.folder_fd = container->folder.get();
    start.gate = gateName(*process, found->is_init);
    start.size = process->pending_size;
    start.seccomp_listener = [this, container, process](UniqueFd listener) {
        auto passed = passSeccompListener(*container, *process, std::move(listener));
        // A program whose calls nobody will answer must not go on.
        if (!passed) (void)base::sendSignal(process->pidfd(), SIGKILL);
        return passed;
    };
    start.done = [this, container, process, gate = start.gate,
                  reply = std::move(reply)](Result<> begun) {
        process->starting = false;
        const bool is_init = process == container->init;
        if (!begun && is_init && container->had_start_hooks) {
            return destroyAfterHook(container, begun.error(), [reply](base::Error error) {
                reply(base::fail(std::move(error)));
            });
        }
        if (!begun) return reply(base::fail(std::move(begun).error()));
        (void)::unlinkat(container->folder.get(), gate.c_str(), 0);
        started(container, process, reply);
    };
    startAtGate(loop_, std::move(start));
}

void Agent::started(const ContainerPtr& container, const std::shared_ptr<Process>& process,
                    Reply<pid_t> reply) {
    process->setRunning();
    if (process->id() == container->id) return runPoststart(container, std::move(reply));
    reply(process->identity().pid);
}

// Source: runtime-spec config-linux.md, "The Container Process State".
Result<> Agent::passSeccompListener(Container& container, const Process& process,
                                    UniqueFd listener) {
    ARCA_TRY(const ExecBase* config, execBase(container));
    if (!config->spec.linux.seccomp) return base::fail(Code::kInternal, "no seccomp profile");
    const spec::Seccomp& profile = *config->spec.linux.seccomp;
    const bool is_init = process.id() == container.id;
    const spec::State state{config->spec.ociVersion,          container.id,
                            is_init ? "creating" : "running", container.init->identity().pid,
                            container.record.bundle,          config->spec.annotations};
    const std::string message =
        seccompListenerMessage(state, process.identity().pid, profile.listenerMetadata);
    // Not waited for: an agent of seccomp that does not accept must not hold up this one.
    auto socket = base::connectUnixPath(profile.listenerPath, SOCK_STREAM | SOCK_NONBLOCK);
    auto passed = socket ? base::sendMessage(socket->get(), message, {listener.get()})
                         : base::fail(socket.error());
    if (passed) return {};
    // Not the code of the connection: a caller would take it for one to this agent.
    return base::fail(Code::kInternal, "linux.seccomp.listenerPath: " + passed.error().message(),
                      passed.error().sysErrno());
}

Result<bool> Agent::killProcess(const ProcessKey& key, int signal_number) {
    if (signal_number < 0 || signal_number > kLastSignal) {
        return base::fail(Code::kInvalidArgument,
                          "signal " + std::to_string(signal_number) + ": out of range 0..64");
    }
    ARCA_TRY(const Found found, findByKey(key));
    const ProcessStatus status = found.process->status();
    if (status == ProcessStatus::kCreating) {
        return base::fail(Code::kFailedPrecondition, "process PID is required");
    }
    bool sent = false;
    if (status != ProcessStatus::kStopped) {
        auto result = base::sendSignal(found.process->pidfd(), signal_number);
        // It ended in between: the same as having ended before.
        if (!result && result.error().code() != Code::kNotFound) {
            return base::fail(std::move(result).error());
        }
        sent = result.has_value();
    }
    if (signal_number != SIGKILL) return sent;
    const CgroupDirs& dirs = found.container->record.cgroups;
    if (found.is_init && !found.container->record.own_pid_namespace) {
        // Without a pid namespace of its own nothing else ends the rest with the init.
        ARCA_CHECK(cgroups_.killAll(dirs));
    }
    // A frozen process takes the signal only once it is thawed.
    if (sent && isFrozen(*found.container)) ARCA_CHECK(cgroups_.setFrozen(dirs, false));
    return sent;
}

Agent::WaitToken Agent::waitProcess(const ProcessKey& key, Reply<ExitStatus> reply) {
    auto found = findByKey(key);
    if (!found) {
        reply(base::fail(std::move(found).error()));
        return 0;
    }
    const WaitToken token = next_wait_++;
    // Entered first: the answer may come from inside onExit().
    waits_[token] = {};
    const uint64_t handler = found->process->onExit(
        [this, token, reply = std::move(reply)](const Result<ExitStatus>& status) {
            waits_.erase(token);
            reply(status);
        });
    const auto entry = waits_.find(token);
    if (entry == waits_.end()) return 0;
    entry->second = {found->process, handler};
    return token;
}

void Agent::forgetWait(WaitToken token) {
    const auto entry = waits_.find(token);
    if (entry == waits_.end()) return;
    const auto process = entry->second.first.lock();
    const uint64_t handler = entry->second.second;
    waits_.erase(entry);
    if (process) process->forgetExitHandler(handler);
}

Result<> Agent::resizeProcess(const ProcessKey& key, uint32_t rows, uint32_t columns) {
    if (rows > kMaxTerminalSize || columns > kMaxTerminalSize) {
        return base::fail(Code::kInvalidArgument, "terminal size: larger than 65535");
    }
    ARCA_TRY(const Found found, findByKey(key));
    const ProcessStatus status = found.process->status();
    if (status == ProcessStatus::kStopped) return {};
    const auto& io = found.process->io;
    // Of a running process without streams here the master is the caller's, who sets it there.
    if (!found.process->terminal() || (!io && status == ProcessStatus::kRunning)) {
        return base::fail(Code::kUnsupported, "resize not supported");
    }
    const TerminalSize size{static_cast<uint16_t>(rows), static_cast<uint16_t>(columns)};
    if (status != ProcessStatus::kRunning) found.process->pending_size = size;
    return io ? io->resize(size) : Result<>();
}

Result<> Agent::closeProcessStdin(const ProcessKey& key) {
    ARCA_TRY(const Found found, findByKey(key));
    if (found.process->io) found.process->io->closeStdin();
    return {};
}

// ---- delete ----

void Agent::deleteProcess(const ProcessKey& key, Reply<> reply) {
    auto checked = checkKey(key);
    if (!checked) return reply(std::move(checked));
    if (key.id == *key.container_id) return deleteInit(key.id, std::move(reply));
    auto container = find(*key.container_id);
    if (!container) return reply(base::fail(std::move(container).error()));
    deleteExec(*container, key.id, std::move(reply));
}

void Agent::deleteExec(const ContainerPtr& container, const std::string& id, Reply<> reply) {
    auto process = findProcess(container, id);
    const std::string stem = std::string(kExecsFolder) + "/" + execFileStem(id);
    if (!process) {
        // A record that cannot be read can be removed all the same.
        if (process.error().code() == Code::kFailedPrecondition) {
            return reply(base::fail(std::move(process).error()));
        }
    } else {
        if ((*process)->being_made) {
            return reply(base::fail(Code::kFailedPrecondition, "exec " + id + " is being made"));
        }
        linger(*process);
        container->execs.erase(id);
    }
    for (const char* suffix : {".json", ".sock"}) {
        if (::unlinkat(container->folder.get(), (stem + suffix).c_str(), 0) != 0 &&
            errno != ENOENT) {
            return reply(base::failErrno("unlink " + stem + suffix));
        }
    }
    reply({});
}

// What can be said of a container whose record is broken or missing: enough to remove it.
ContainerPtr Agent::salvage(const std::string& id) {
    auto container = std::make_shared<Container>();
    container->id = id;
    auto folder =
        base::openAt(state_root_.get(), recordFolder(id), O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!folder) return nullptr;
    container->folder = std::move(*folder);
    container->init = std::make_shared<Process>(loop_, id, false);
    std::string path = config_.cgroup_prefix + "/" + id;
    const auto text = base::readFile(kConfigFile, spec::kMaxConfigBytes, container->folder.get());
    if (text) {
        const auto parsed = spec::parseSpec(*text, spec::Source::kWire);
        if (parsed) path = parsed->linux.cgroupsPath;
        if (parsed && parsed->linux.intelRdt) {
            container->record.resctrl = resctrl_.leftBehind(*parsed->linux.intelRdt, id);
        }
    }
    // Only a cgroup that carries the container's name is surely its own.
    const bool named = path.size() > id.size() && path.ends_with("/" + id);
    if (named) container->record.cgroups = cgroups_.directories(path);
    for (CgroupDir& dir : container->record.cgroups) dir.made = true;
    return container;
}

void Agent::deleteInit(const std::string& id, Reply<> reply) {
    auto looked_up = lookUp(id);
    ContainerPtr container = looked_up ? *looked_up : salvage(id);
    // What a host has mounted or copied there for a container that then did not come to be.
    if (!container && config_.owns_container_folder) container = salvage(id);
    if (!container) {
        if (!looked_up) return reply(base::fail(std::move(looked_up).error()));
        return reply(base::fail(Code::kNotFound, "container " + id + " not found"));
    }
    if (container->being_made && config_.hooks != nullptr) {
        return deleteUnfinished(container, std::move(reply));
    }
    if (container->being_made || container->being_deleted) {
        return reply(base::fail(
            Code::kFailedPrecondition,
            "container " + id + " is being " + (container->being_made ? "made" : "deleted")));
    }
    if (container->init->status() != ProcessStatus::kStopped) {
        // The protocol leaves what runs to the caller; what is deleted here is ended first.
        if (container->init->pidfd() >= 0) {
            (void)base::sendSignal(container->init->pidfd(), SIGKILL);
        }
        auto killed = cgroups_.killAll(container->record.cgroups);
        if (!killed) base::log::warning("kill before delete: " + killed.error().message());
    }
    removeContainer(container, Removal::kAll, std::move(reply));
}

void Agent::removeContainer(const ContainerPtr& container, Removal removal, Reply<> reply) {
    container->being_deleted = true;
    removeCgroup(
        loop_, cgroups_, container->record.cgroups, kCgroupRemovalLimit,
        [this, container, removal, reply = std::move(reply)](Result<bool> removed) {
            container->being_deleted = false;
            if (!removed || !*removed) {
                // The record stays, so that a later delete can finish.
                container->being_made = false;
                if (!removed) return reply(base::fail(std::move(removed).error()));
                return reply(base::fail(Code::kInternal, "container " + container->id +
                                                             ": its cgroup is still in use"));
            }
            stopServices(container, [this, container, removal, reply](Result<> stopped) {
                if (!stopped) {
                    container->being_made = false;
                    container->being_deleted = false;
                    return reply(std::move(stopped));
                }
                unmountAndForget(container, removal, reply);
            });
        });
}

void Agent::unmountAndForget(const ContainerPtr& container, Removal removal, Reply<> reply) {
    const std::string path = config_.state_root + "/" + container->id;
    auto failure = std::make_shared<Result<>>();
    const auto attempt = [this, path, removal, failure] {
        if (config_.owns_container_folder && removal == Removal::kAll) {
            *failure = unmountAllBelow(path);
        }
        return failure->has_value() || failure->error().sysErrno() != EBUSY;
    };
    container->being_deleted = true;
    retryUntil(loop_, kUnmountLimit, attempt,
               [this, container, removal, failure, reply = std::move(reply)](bool /*settled*/) {
                   container->being_deleted = false;
                   container->being_made = false;
                   Result<> removed = std::move(*failure);
                   const bool undo = removal == Removal::kMade;
                   if (removed) removed = resctrl_.remove(container->record.resctrl, undo);
                   if (removed) removed = removeRecord(*container, removal);
                   // What is left of the record serves the next attempt.
                   if (!removed) return reply(std::move(removed));
                   linger(container->init);
                   for (const auto& [id, process] : container->execs) linger(process);
                   containers_.erase(container->id);
                   base::log::debug("deleted container=" + container->id);
                   runPoststop(container, reply);
               });
}

// The file that says that there is a container goes last: a removal that fails can be repeated.
Result<> Agent::removeRecord(const Container& container, Removal removal) {
    const std::string folder = recordFolder(container.id);
    auto fd = base::openAt(state_root_.get(), folder, O_RDONLY | O_DIRECTORY);
    if (!fd && fd.error().sysErrno() == ENOENT) return {};
    if (!fd) return base::fail(std::move(fd).error());
    if (config_.owns_container_folder && removal == Removal::kMade) {
        for (const char* name : {kConfigFile, kGateSocket, kExecsFolder, kInitFile}) {
            ARCA_CHECK(base::removeTree(fd->get(), name));
        }
        // Nobody's any more when nothing else is in it.
        (void)::unlinkat(state_root_.get(), folder.c_str(), AT_REMOVEDIR);
        return {};
    }
    ARCA_TRY(const auto names, base::listDir(fd->get()));
    for (const std::string& name : names) {
        if (name != kInitFile) ARCA_CHECK(base::removeTree(fd->get(), name));
    }
    return base::removeTree(state_root_.get(), folder);
}

}  // namespace arca::vminitd
