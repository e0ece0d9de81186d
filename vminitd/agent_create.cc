// CreateProcess: from the request to a process at its gate.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/strings.h"
#include "spec/parse.h"
#include "spec/plan.h"
#include "spec/write.h"
#include "vminitd/agent.h"
#include "vminitd/oci_alterations.h"
#include "vminitd/process_setup.h"
#include "vminitd/rootless_cgroups.h"
#include "vminitd/supervisor.h"

namespace arca::vminitd {

using base::Code;
using base::Error;
using base::Result;
using base::UniqueFd;

namespace {

constexpr unsigned kPruneInterval = 32;
constexpr size_t kMaxRecordBytes = size_t{1} << 20U;

bool isYoung(int dir_fd, const std::string& name) {
    constexpr int64_t kMinuteNs = 60'000'000'000;
    const auto stamp = stampOf(dir_fd, name.c_str());
    return stamp && wallClockNs() - stamp->modified_ns < kMinuteNs;
}

// Moves `dirs` to the folders below the container's cgroup that `texts` name, each as
// "[CONTROLLERS:]PATH"; without controllers it is for all. Source: runc(8), "exec", --cgroup.
Result<> enterSubCgroups(const std::vector<std::string>& texts, bool unified, CgroupDirs& dirs) {
    if (unified && texts.size() > 1) {
        return base::fail(Code::kInvalidArgument,
                          "--cgroup: cgroup v2 has one tree, only one path can be given");
    }
    const CgroupDirs own = dirs;
    for (const std::string& text : texts) {
        const size_t colon = text.find(':');
        const std::string clean = cleanCgroupPath(text.substr(colon + 1));  // npos + 1 is 0
        const std::string below = clean == "/" ? std::string() : clean;
        if (colon == std::string::npos) {
            for (size_t i = 0; i < dirs.size(); ++i) dirs[i].path = own[i].path + below;
            continue;
        }
        const std::string controllers = text.substr(0, colon);
        for (const std::string_view wanted : base::split(controllers, ',')) {
            bool found = false;
            for (size_t i = 0; i < dirs.size(); ++i) {
                const auto names = base::split(dirs[i].controllers, ',');
                if (std::find(names.begin(), names.end(), wanted) == names.end()) continue;
                dirs[i].path = own[i].path + below;
                found = true;
            }
            if (!found) {
                return base::fail(Code::kInvalidArgument, "--cgroup " + base::printable(text) +
                                                              ": no cgroup controller " +
                                                              base::printable(wanted) + " here");
            }
        }
    }
    return {};
}

// Who may manage what is below the container's cgroup: the user that its program runs as, when the
// container sees that cgroup as its own root, writable. Source: runtime-spec config-linux.md,
// "Cgroup ownership".
std::optional<uid_t> cgroupOwner(const spec::Spec& spec) {
    if (!spec.process || !spec.newNamespace(spec::NamespaceType::kCgroup)) return std::nullopt;
    const bool writable = std::any_of(spec.mounts.begin(), spec.mounts.end(), [](const auto& m) {
        const bool read_only =
            std::find(m.options.begin(), m.options.end(), "ro") != m.options.end();
        return (m.type == "cgroup" || m.type == "cgroup2") && !read_only;
    });
    if (!writable) return std::nullopt;
    const uint32_t uid = spec.process->user.uid;
    if (spec.linux.findNamespace(spec::NamespaceType::kUser) == nullptr) return uid;
    for (const spec::IdMapping& map : spec.linux.uidMappings) {
        if (uid >= map.containerID && uid - map.containerID < map.size) {
            return map.hostID + (uid - map.containerID);
        }
    }
    return std::nullopt;  // a namespace that was there: its map is its maker's affair
}

BodyRequest bodyRequest(const CreateRequest& request, const spec::Spec& config, bool terminal) {
    BodyRequest body;
    body.key = {*request.key.container_id, request.key.id};
    body.ports = {request.stdin_port, request.stdout_port, request.stderr_port};
    body.terminal = terminal;
    body.drivers = driversForProcess(config);
    body.warned = request.warned;
    return body;
}

// What a host that speaks to the agent itself expects in the image. Source: the guest protocol,
// "Steps", 6a.
Result<> writeHostname(const std::string& root_path, const std::string& hostname) {
    ARCA_TRY(const UniqueFd root, base::openAt(AT_FDCWD, root_path, O_PATH | O_DIRECTORY));
    ARCA_TRY(const UniqueFd etc, base::makeDirsInRoot(root.get(), "/etc", 0755));
    return base::replaceFile(etc.get(), "hostname", hostname, 0644);
}

void describe(const SeccompProgram& seccomp, spec::Plan& plan) {
    plan.seccomp_program = seccomp.filter;
    plan.seccomp_flags = seccomp.flags;
    plan.seccomp_notify = seccomp.notify;
}

}  // namespace

// One CreateProcess under way.
struct Agent::Creation {
    bool is_init = false;
    bool rootless = false;  // of an init: cgroups that cannot be had are done without
    ContainerPtr container;
    std::shared_ptr<Process> process;
    CreateRequest request;
    Reply<> reply;
    spec::Plan plan;
    spec::Resources resources;
    CgroupDirs join;
    UniqueFd gate;
    std::string plan_text;
    std::string stem;  // of an exec's files
    pid_t pid = 0;     // once vmexec has told it
};

Result<> Agent::checkRequest(const CreateRequest& request) const {
    ARCA_CHECK(checkKey(request.key));
    if (request.has_runtime_path) {
        return base::fail(Code::kUnsupported, "ociRuntimePath: not supported");
    }
    if (!config_.dials_stdio &&
        (request.stdin_port || request.stdout_port || request.stderr_port)) {
        return base::fail(Code::kUnsupported, "stdio ports: not supported in a local sandbox");
    }
    return {};
}

void Agent::createProcess(CreateRequest request, Reply<> reply) {
    auto checked = checkRequest(request);
    if (!checked) return reply(std::move(checked));
    const std::string& container_id = *request.key.container_id;
    auto container = lookUp(container_id);
    if (!container) return reply(base::fail(std::move(container).error()));
    const bool is_init = request.key.id == container_id;
    if (*container && is_init) {
        return reply(base::fail(Code::kAlreadyExists, base::texts::kContainerIdExists));
    }
    if (*container) return createExec(*container, std::move(request), std::move(reply));
    if (!is_init) {
        return reply(base::fail(Code::kInvalidArgument, "init process id must match container id"));
    }
    createInit(std::move(request), std::move(reply));
}

// ---- init ----

void Agent::createInit(CreateRequest request, Reply<> reply) {
    auto creation = std::make_shared<Creation>();
    creation->is_init = true;
    creation->request = std::move(request);
    creation->reply = std::move(reply);
    auto prepared = prepareInit(*creation);
    if (!prepared) return creation->reply(std::move(prepared));
    const std::string id = creation->container->id;
    containers_.emplace(id, creation->container);
    const spec::Spec& config = creation->plan.spec;
    BodyRequest body = bodyRequest(creation->request, config, creation->process->terminal());
    // What hooks are told after the environment was made: runtime.md, "Lifecycle", steps 2 to 5.
    body.state = {config.ociVersion, id, "created", 0, creation->plan.bundle, config.annotations};
    if (config_.hooks != nullptr) prepareHooks(*creation->container, config, body);
    bodies_.acquire(body,
                    [this, creation](Result<Body> got) { gotBody(creation, std::move(got)); });
}

// All that can be found wrong without touching anything.
Result<> Agent::prepareInit(Creation& creation) {
    const CreateRequest& request = creation.request;
    const CreateOptions& options = request.options;
    const auto source = options.from_command ? spec::Source::kBundle : spec::Source::kWire;
    spec::Warnings warnings;
    auto parsed = spec::parseSpec(request.configuration, source, &warnings);
    if (!parsed) return base::fail(std::move(parsed).error());
    for (const std::string& warning : warnings) {
        base::log::warning(warning + " container=" + request.key.id);
    }
    spec::Plan& plan = creation.plan;
    plan.spec = std::move(*parsed);
    creation.rootless =
        plan.spec.linux.cgroupsPath.empty() && options.rootless.value_or(config_.rootless);
    ARCA_CHECK(applyOciAlterations(plan.spec, {.process_id = request.key.id,
                                               .bundle = options.bundle,
                                               .cgroup_prefix = config_.cgroup_prefix,
                                               .root_fd = -1,
                                               .process_may_be_missing = options.from_command,
                                               .arca_group_add = !options.from_command}));
    SeccompProgram seccomp;
    if (plan.spec.linux.seccomp) {
        ARCA_TRY(seccomp, seccomp_.get(*plan.spec.linux.seccomp));
    }
    creation.container = std::make_shared<Container>();
    Container& container = *creation.container;
    container.id = request.key.id;
    container.being_made = true;
    if (config_.hooks != nullptr) ARCA_CHECK(collectHooks(container, plan.spec));
    plan.kind = spec::PlanKind::kInit;
    plan.container_id = request.key.id;
    plan.bundle = options.bundle;
    plan.no_pivot = options.no_pivot;
    plan.no_new_keyring = options.no_new_keyring;
    plan.preserve_fds = options.preserve_fds;
    const spec::Hooks& hooks = plan.spec.hooks;
    plan.wait_for_hooks = !hooks.prestart.empty() || !hooks.createRuntime.empty();
    plan.unified_cgroup = cgroups_.unified();
    describe(seccomp, plan);
    if (plan.spec.linux.resources) creation.resources = *plan.spec.linux.resources;

    container.record.bundle = options.bundle;
    container.record.own_pid_namespace = plan.spec.newNamespace(spec::NamespaceType::kPid);
    if (options.cgroup == CreateOptions::Cgroup::kAgent) {
        ARCA_TRY(container.record.cgroups, cgroups_.locate(plan.spec.linux.cgroupsPath));
    } else if (options.cgroup == CreateOptions::Cgroup::kSystemd) {
        // The body is in it already; what is missing of it in other hierarchies is made.
        container.record.cgroups = cgroups_.directories(plan.spec.linux.cgroupsPath);
        for (CgroupDir& dir : container.record.cgroups) dir.made = true;
    }
    if (plan.spec.linux.intelRdt) {
        ARCA_TRY(container.record.resctrl,
                 resctrl_.locate(*plan.spec.linux.intelRdt, container.id));
    }
    const bool terminal = plan.spec.process && plan.spec.process->terminal;
    container.init = std::make_shared<Process>(loop_, container.id, terminal);
    creation.process = container.init;
    recordExits(creation.container, container.init, true);
    return {};
}

// Records, then makes: cgroup, gate.
Result<> Agent::makeInit(Creation& creation) {
    Container& container = *creation.container;
    const std::string folder = recordFolder(container.id);
    for (const std::string& part : {container.id, folder}) {
        if (::mkdirat(state_root_.get(), part.c_str(), 0700) != 0 && errno != EEXIST) {
            return base::failErrno("mkdir " + config_.state_root + "/" + part);
        }
    }
    ARCA_TRY(container.folder,
             base::openAt(state_root_.get(), folder, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    ARCA_CHECK(base::replaceFile(container.folder.get(), kConfigFile,
                                 spec::writeSpec(creation.plan.spec)));
    ARCA_CHECK(writeRecord(container));
    const spec::Spec& config = creation.plan.spec;
    if (config_.owns_container_folder && !creation.request.options.from_command &&
        !config.hostname.empty()) {
        const auto written = writeHostname(config.root->path, config.hostname);
        if (!written) {
            base::log::warning("cannot write /etc/hostname container=" + container.id +
                               " reason=" + written.error().message());
        }
    }
    ARCA_CHECK(cgroups_.create(container.record.service_cgroups));
    CgroupDirs& dirs = container.record.cgroups;
    const size_t located = dirs.size();
    if (creation.rootless && !dirs.empty()) {
        ARCA_CHECK(makeRootlessCgroups(cgroups_, dirs, creation.resources));
    } else if (!dirs.empty()) {
        ARCA_CHECK(cgroups_.create(dirs));
        ARCA_CHECK(cgroups_.apply(dirs, creation.resources));
        const auto owner = cgroupOwner(config);
        if (owner && *owner != 0) ARCA_CHECK(cgroups_.delegate(dirs, *owner));
    }
    if (config.linux.intelRdt) {
        auto made = resctrl_.create(container.record.resctrl, *config.linux.intelRdt);
        if (!made) {
            // What is there is not this container's.
            container.record.resctrl = {};
            return made;
        }
    }
    creation.join = dirs;
    for (const CgroupDir& dir : dirs) creation.plan.cgroup_paths.push_back(dir.path);
    if (dirs.size() != located) {
        // Where the container is not let in it stays in the caller's, below the mount point.
        for (const CgroupDir& top : cgroups_.directories("/")) {
            const auto kept = [&top](const CgroupDir& dir) {
                return dir.controllers == top.controllers;
            };
            if (std::none_of(dirs.begin(), dirs.end(), kept)) {
                creation.plan.cgroup_paths.push_back(top.path);
            }
        }
    }
    ARCA_TRY(creation.gate, base::listenUnix(container.folder.get(), kGateSocket, SOCK_SEQPACKET));
    creation.plan_text = spec::writePlan(creation.plan);
    SeccompProgram seccomp{std::move(creation.plan.seccomp_program), creation.plan.seccomp_flags,
                           creation.plan.seccomp_notify};
    container.exec_base =
        std::make_unique<ExecBase>(makeExecBase(std::move(creation.plan.spec), std::move(seccomp)));
    return {};
}

// ---- exec ----

void Agent::createExec(const ContainerPtr& container, CreateRequest request, Reply<> reply) {
    auto creation = std::make_shared<Creation>();
    creation->container = container;
    creation->request = std::move(request);
    creation->reply = std::move(reply);
    auto prepared = prepareExec(*creation);
    if (!prepared) return creation->reply(std::move(prepared));
    creation->process->being_made = true;
    const std::string& id = creation->process->id();
    container->execs.emplace(id, creation->process);
    bodies_.acquire(
        bodyRequest(creation->request, creation->plan.spec, creation->process->terminal()),
        [this, creation](Result<Body> body) { gotBody(creation, std::move(body)); });
}

Result<> Agent::prepareExec(Creation& creation) {
    Container& container = *creation.container;
    const std::string& id = creation.request.key.id;
    const CreateOptions& options = creation.request.options;
    const ProcessStatus status = container.init->status();
    if (status == ProcessStatus::kStopped) {
        return base::fail(Code::kFailedPrecondition, base::texts::kExecStopped);
    }
    if (status == ProcessStatus::kCreating || container.being_deleted) {
        return base::fail(Code::kFailedPrecondition,
                          "container " + container.id + " has no init yet");
    }
    if (!options.ignore_paused && isFrozen(container)) {
        return base::fail(Code::kFailedPrecondition, base::texts::kExecPaused);
    }
    creation.stem = std::string(kExecsFolder) + "/" + execFileStem(id);
    if (container.execs.contains(id) ||
        stampOf(container.folder.get(), (creation.stem + ".json").c_str())) {
        return base::fail(Code::kAlreadyExists,
                          "exec " + id + " already exists in container " + container.id);
    }
    ARCA_TRY(const ExecBase* exec_base, execBase(container));
    const auto source = options.from_command ? spec::Source::kBundle : spec::Source::kWire;
    auto parsed = spec::parseSpec(creation.request.configuration, source);
    if (!parsed) return base::fail(std::move(parsed).error());
    spec::Plan& plan = creation.plan;
    // Everything but the process is the container's own, whatever the request repeats of it.
    plan.spec = exec_base->spec;
    plan.spec.process = std::move(parsed->process);
    const pid_t init_pid = container.init->identity().pid;
    // As its init sees it: with what is mounted over the image.
    ARCA_TRY(const UniqueFd root,
             base::openAt(AT_FDCWD, "/proc/" + std::to_string(init_pid) + "/root",
                          O_PATH | O_DIRECTORY));
    ARCA_CHECK(applyOciAlterations(plan.spec, {.process_id = container.id,
                                               .bundle = options.bundle,
                                               .cgroup_prefix = config_.cgroup_prefix,
                                               .root_fd = root.get(),
                                               .process_may_be_missing = false,
                                               .arca_group_add = !options.from_command}));
    plan.kind = spec::PlanKind::kExec;
    plan.container_id = container.id;
    plan.bundle = container.record.bundle;
    plan.no_new_keyring = options.no_new_keyring;
    plan.preserve_fds = options.preserve_fds;
    plan.init_pid = init_pid;
    plan.init_start_time_ticks = container.init->identity().start_time_ticks;
    plan.unified_cgroup = cgroups_.unified();
    describe(exec_base->seccomp, plan);
    for (const CgroupDir& dir : container.record.cgroups) plan.cgroup_paths.push_back(dir.path);
    if (options.cgroups.empty()) {
        ARCA_TRY(creation.join, cgroups_.currentOf(init_pid, container.record.cgroups));
    } else {
        creation.join = container.record.cgroups;
        ARCA_CHECK(enterSubCgroups(options.cgroups, cgroups_.unified(), creation.join));
    }
    creation.process = std::make_shared<Process>(loop_, id, plan.spec.process->terminal);
    recordExits(creation.container, creation.process, false);
    return {};
}

Result<> Agent::makeExec(Creation& creation) {
    Container& container = *creation.container;
    if (::mkdirat(container.folder.get(), kExecsFolder, 0700) != 0 && errno != EEXIST) {
        return base::failErrno("mkdir " + std::string(kExecsFolder));
    }
    ARCA_TRY(const UniqueFd execs,
             base::openAt(container.folder.get(), kExecsFolder, O_PATH | O_DIRECTORY));
    pruneExecs(container, execs.get());
    ARCA_CHECK(writeExecRecord(container, *creation.process));
    ARCA_TRY(creation.gate,
             base::listenUnix(execs.get(), execFileStem(creation.process->id()) + ".sock",
                              SOCK_SEQPACKET));
    creation.plan_text = spec::writePlan(creation.plan);
    return {};
}

// Commands do not delete the processes that they leave behind. What has ended goes with the first
// exec that an agent makes and with every kPruneInterval-th, so that a health check a second does
// not fill the disk.
void Agent::pruneExecs(Container& container, int execs_fd) {
    if (!config_.commands_forget_execs || container.execs_made++ % kPruneInterval != 0) return;
    auto folder = base::openAt(execs_fd, ".", O_RDONLY | O_DIRECTORY);
    if (!folder) return;
    const auto names = base::listDir(folder->get());
    if (!names) return;
    constexpr std::string_view kSuffix = ".json";
    for (const std::string& name : *names) {
        if (!name.ends_with(kSuffix)) continue;
        const auto text = base::readFile(name, kMaxRecordBytes, execs_fd);
        const auto record = parseProcessRecord(text.value_or(std::string()));
        if (!record || record->id.empty()) continue;
        const auto known = container.execs.find(record->id);
        if (known != container.execs.end()) {
            Process& process = *known->second;
            if (process.being_made || process.hasExitHandlers()) continue;
            if (process.status() != ProcessStatus::kStopped) continue;
            container.execs.erase(known);
        } else if (base::isAlive(record->identity) || isYoung(execs_fd, name)) {
            // Young: perhaps another agent of this state root is making it.
            continue;
        }
        const std::string stem = name.substr(0, name.size() - kSuffix.size());
        for (const char* suffix : {".json", ".sock"}) {
            (void)::unlinkat(execs_fd, (stem + suffix).c_str(), 0);
        }
    }
}

// ---- both ----

void Agent::gotBody(const CreationPtr& creation, Result<Body> body) {
    if (!body) return fail(creation, std::move(body).error());
    auto made = creation->is_init ? makeInit(*creation) : makeExec(*creation);
    if (!made) return fail(creation, std::move(made).error());
    SetupRequest setup;
    setup.body = std::move(*body);
    setup.plan = std::move(creation->plan_text);
    setup.gate = std::move(creation->gate);
    setup.run_hooks = creation->plan.wait_for_hooks;
    creation->process->io = setup.body.io;
    setup.join = [this, creation](pid_t pid) -> Result<> {
        supervise(*creation, pid);
        ARCA_CHECK(resctrl_.addProcess(creation->container->record.resctrl, pid));
        if (!creation->rootless) return cgroups_.addProcess(creation->join, pid);
        // What it was let into is what is recorded next.
        return addRootlessProcess(cgroups_, creation->container->record.cgroups, pid);
    };
    setup.record = [this, creation](const base::ProcessIdentity& identity) -> Result<> {
        creation->process->setIdentity(identity);
        if (creation->is_init) return writeRecord(*creation->container);
        return writeExecRecord(*creation->container, *creation->process);
    };
    setup.done = [this, creation](Result<MadeProcess> made_process) {
        finished(creation, std::move(made_process));
    };
    setUpProcess(loop_, std::move(setup));
}

// From the moment at which its pid is known, so that no exit is too early to be seen.
void Agent::supervise(Creation& creation, pid_t pid) {
    if (config_.supervisor == nullptr) return;
    creation.pid = pid;
    creation.process->expectExit();
    config_.supervisor->expect(pid, [this, process = creation.process](const ExitStatus& status) {
        base::log::debug("exited id=" + process->id() + " code=" + std::to_string(status.code));
        // Those who wait for the end may rely on having all of the output.
        ++exits_under_way_;
        const auto closed = [this, process, status] {
            --exits_under_way_;
            process->setExit(status);
        };
        if (!process->io) return closed();
        process->io->processExited(closed);
    });
}

void Agent::finished(const CreationPtr& creation, Result<MadeProcess> made) {
    if (!made) return fail(creation, std::move(made).error());
    creation->process->being_made = false;
    creation->process->setCreated(std::move(made->pidfd));
    if (creation->is_init) creation->container->being_made = false;
    for (Reply<>& deletion : std::exchange(creation->container->deletions, {})) {
        deleteInit(creation->container->id, std::move(deletion));
    }
    base::log::debug("created id=" + creation->process->id() + " container=" +
                     creation->container->id + " pid=" + std::to_string(made->identity.pid));
    creation->reply({});
}

void Agent::answerDeletions(Container& container, const Result<>& result) {
    for (const Reply<>& done : std::exchange(container.deletions, {})) done(result);
}

// Leaves nothing: processes, cgroup, record.
void Agent::fail(const CreationPtr& creation, Error error) {
    const std::string& reason = creation->container->end_reason;
    if (creation->is_init && !reason.empty()) error = Error(Code::kInternal, reason);
    base::log::debug("create failed id=" + creation->request.key.id +
                     " container=" + creation->container->id + " reason=" + error.message());
    creation->process->giveUp(error);
    if (creation->process->io) creation->process->io->abandon();
    if (creation->pid != 0) config_.supervisor->forget(creation->pid);
    if (!creation->is_init) {
        creation->container->execs.erase(creation->process->id());
        for (const char* suffix : {".json", ".sock"}) {
            (void)::unlinkat(creation->container->folder.get(), (creation->stem + suffix).c_str(),
                             0);
        }
        return creation->reply(base::fail(std::move(error)));
    }
    if (!creation->container->folder.valid()) {
        // Nothing was made yet.
        containers_.erase(creation->container->id);
        answerDeletions(*creation->container, {});
        return creation->reply(base::fail(std::move(error)));
    }
    if (creation->request.options.cgroup == CreateOptions::Cgroup::kSystemd) {
        // The body is in this cgroup already, and its death would reach the command before the
        // reason does. The command deletes what is left, as it does with its own part.
        creation->container->being_made = false;
        return creation->reply(base::fail(std::move(error)));
    }
    // Hooks that were run get their counterpart. Source: runtime.md, "Lifecycle", steps 3 to 5, 13.
    if (!creation->container->had_create_hooks) creation->container->poststop.clear();
    const Removal removal = creation->container->deletions.empty() ? Removal::kMade : Removal::kAll;
    removeContainer(
        creation->container, removal, [creation, error = std::move(error)](Result<> removed) {
            answerDeletions(*creation->container, removed);
            if (removed) return creation->reply(base::fail(error));
            creation->reply(
                base::fail(error.code(), error.message() + "; and " + removed.error().message()));
        });
}

}  // namespace arca::vminitd
