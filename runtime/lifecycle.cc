#include "runtime/lifecycle.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error_texts.h"
#include "base/ids.h"
#include "base/log.h"
#include "hooks/hook_runner.h"
#include "proto/lease_protocol.h"
#include "runtime/body.h"
#include "runtime/bundle.h"
#include "runtime/hook_places.h"
#include "runtime/notify.h"
#include "runtime/pid_file.h"
#include "runtime/sockets.h"
#include "runtime/systemd_cgroup.h"
#include "spec/version.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
namespace texts = base::texts;

constexpr std::chrono::seconds kKillPatience{10};
constexpr std::chrono::seconds kGuestKillPatience{4};

hooks::HookContext hookContext(const Record& record, const char* kind, Status status, pid_t pid) {
    hooks::HookContext context;
    context.kind = kind;
    context.state.ociVersion = record.oci_version;
    context.state.id = record.id;
    context.state.status = statusName(status);
    context.state.pid = pid;
    context.state.bundle = record.bundle;
    context.state.annotations = record.annotations;
    // A bundle that has been deleted already must not keep poststop hooks from cleaning up.
    context.cwd = ::access(record.bundle.c_str(), X_OK) == 0 ? record.bundle : "/";
    for (char** entry = environ; *entry != nullptr; ++entry)
        context.default_env.emplace_back(*entry);
    return context;
}

// `status` is "created" in both: the hooks are steps 3 and 4 of the specification's lifecycle, and
// what comes after step 2 is that status. So the conformance suite has it too.
Result<> runCreateHooks(const Record& record, const spec::Hooks& hooks, pid_t pid) {
    ARCA_CHECK(
        hooks::runHooks(hooks.prestart, hookContext(record, "prestart", Status::kCreated, pid)));
    return hooks::runHooks(hooks.createRuntime,
                           hookContext(record, "createRuntime", Status::kCreated, pid));
}

bool hasCreateHooks(const spec::Hooks& hooks) {
    return !hooks.prestart.empty() || !hooks.createRuntime.empty() ||
           !hooks.createContainer.empty();
}

bool hasHome(const std::optional<spec::Process>& process) {
    if (!process) return false;
    for (const std::string& entry : process->env) {
        constexpr std::string_view kHome = "HOME=";
        if (entry.size() > kHome.size() && entry.rfind(kHome, 0) == 0) return true;
    }
    return false;
}

// What has no process has no terminal either: its start is what fails.
bool hasTerminal(const spec::Spec& spec) {
    return spec.process && spec.process->terminal;
}

Record newRecord(const Context& context, const std::string& id, const Bundle& bundle) {
    Record record;
    record.id = id;
    record.bundle = bundle.path;
    record.rootfs = bundle.spec.root->path;
    record.created = timestampNow();
    record.oci_version = bundle.spec.ociVersion;
    record.annotations = bundle.spec.annotations;
    record.owner = ::geteuid();
    record.rootless = context.globals.rootless;
    record.private_pid_namespace = bundle.spec.newNamespace(spec::NamespaceType::kPid);
    record.home_given = hasHome(bundle.spec.process);
    record.hooks.startContainer = bundle.spec.hooks.startContainer;
    return record;
}

// A container of a pod goes into the sandbox of the pod's first one.
// Source: the annotations of containerd's CRI plugin, and of CRI-O, which podman uses too.
std::string sandboxOwner(const spec::Annotations& annotations, const std::string& id) {
    constexpr const char* kKinds[][2] = {
        {"io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"},
        {"io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"}};
    for (const auto& [type, owner] : kKinds) {
        const auto kind = annotations.find(type);
        const auto name = annotations.find(owner);
        if (kind == annotations.end() || name == annotations.end()) continue;
        if (kind->second == "container") return name->second;
    }
    return id;
}

// Flag, variable, configuration file, then what that allows annotations to say; the choice goes
// into `record`.
Result<Settings> chooseSandbox(const Context& context, const spec::Annotations& annotations,
                               Record& record) {
    record.sandbox_id = record.id;
    // With everything said on the command line an unreadable file must still be noticed.
    ARCA_TRY(Settings settings, readSettings(context.globals.configuration));
    ARCA_CHECK(applyAnnotations(annotations, settings));
    record.sandbox = context.globals.sandbox;
    if (record.sandbox.empty()) record.sandbox = settings.sandbox;
    if (record.sandbox.empty()) record.sandbox = "local";
    ARCA_CHECK(checkSandbox(record.sandbox));
    if (record.sandbox == "local" && annotations.contains(kGuestHooksAnnotation)) {
        return fail(Code::kUnsupported, std::string("annotation ") + kGuestHooksAnnotation +
                                            ": the local sandbox has no guest");
    }
    if (record.sandbox != "local") {
        record.sandbox_id = sandboxOwner(annotations, record.id);
        ARCA_CHECK(base::validateId(record.sandbox_id));
    }
    record.applies_labels = record.sandbox != "vm" || settings.vm.labels == "apply";
    return settings;
}

// Who puts the container into its cgroup, when that is not the driver. In a guest the container's
// cgroup is the guest's own affair, and this is about its stand-in, which has no limits.
Result<> chooseCgroupManager(const Globals& globals, Bundle& bundle, Container& container,
                             ProcessRequest& request, ProcessOptions& options) {
    const bool local = container.record.sandbox == "local";
    if (globals.cgroups_disabled) {
        if (local) options.cgroup_manager = "disabled";
        request.place_body = [](pid_t) { return Result<>(); };
    }
    if (!globals.systemd_cgroup) return {};
    if (local) options.cgroup_manager = "systemd";
    ARCA_TRY(const systemd::ScopeName name, scopeFor(bundle.spec, container.record.id));
    request.place_body = [&container, &bundle, name, local](pid_t pid) -> Result<> {
        spec::Spec stand_in;
        stand_in.annotations = bundle.spec.annotations;
        ARCA_CHECK(placeInScope(name, pid, local ? bundle.spec : stand_in, container.record));
        return container.dir.save(container.record);
    };
    return {};
}

Result<ProcessRequest> initRequest(const Context& context, Action action, Bundle& bundle,
                                   const spec::Hooks& host_hooks, Container& container) {
    Record& record = container.record;
    const Arguments& arguments = context.arguments;
    ProcessRequest request;
    request.container_id = record.id;
    request.process_id = record.id;
    request.spec = &bundle.spec;
    ProcessOptions options;
    options.bundle = bundle.path;
    options.no_pivot = arguments.isSet("no-pivot");
    options.no_new_keyring = arguments.isSet("no-new-keyring");
    options.preserve_fds = context.fds.count;
    options.rootless = context.globals.rootless;
    ARCA_CHECK(chooseCgroupManager(context.globals, bundle, container, request, options));
    request.options = writeOptions(options);
    request.stdio = hasTerminal(bundle.spec) ? Stdio::kTerminal : Stdio::kInherit;
    request.inherited_fds = context.fds.count;
    request.applies_labels = record.applies_labels;
    request.may_be_plugged = action == Action::kCreate || !host_hooks.prestart.empty() ||
                             !host_hooks.createRuntime.empty();
    request.run_hooks = [&record, &host_hooks](pid_t pid) {
        return runCreateHooks(record, host_hooks, pid);
    };
    return request;
}

// The part of create that has something to undo: from the first record on disk to the last step.
Result<MadeProcess> makeInit(const Context& context, Action action, const SignalInbox& signals,
                             Bundle& bundle, const spec::Hooks& host_hooks, const HandOver& sockets,
                             Container& container) {
    Record& record = container.record;
    ARCA_CHECK(container.dir.save(record));
    ARCA_CHECK(addNotifySocket(container.dir, bundle.spec));
    ARCA_TRY(const ProcessRequest request,
             initRequest(context, action, bundle, host_hooks, container));
    auto made = container.driver->createProcess(request);
    if (!made) return fail(processError(made.error()));
    record.init = made->identity;
    ARCA_CHECK(signals.checkInterrupt());
    if (made->terminal.valid()) ARCA_CHECK(sendTerminal(sockets, made->terminal.get()));
    ARCA_CHECK(sendPidfd(sockets, record.init, "standard"));
    if (action == Action::kCreate) {
        record.stage = Stage::kCreated;
        ARCA_CHECK(container.dir.save(record));
        ARCA_CHECK(writePidFile(context.arguments.text("pid-file"), record.init.pid));
    }
    return made;
}

// Takes back what makeInit() did. Hooks that were run get their counterpart (runtime.md,
// "Lifecycle", steps 3 to 5 and 13).
void undoCreate(Container& container, bool had_hooks) {
    auto destroyed =
        destroyContainer(container, had_hooks ? PoststopHooks::kRun : PoststopHooks::kSkip);
    reapEndedChildren();
    if (!destroyed) {
        base::log::warning("cleaning up after the failure: " + destroyed.error().message());
    }
}

void warn(const base::Error& error) {
    base::log::warning(error.message());
}

// Until 1.2 of the specification a poststart hook that fails is a warning and the others run; since
// 1.3 it ends the container. Source: runtime.md, "Lifecycle", step 9, of either version.
Result<> runPoststartHooks(const Record& record) {
    const hooks::HookContext context =
        hookContext(record, "poststart", Status::kRunning, record.init.pid);
    if (spec::versionAtLeast(record.oci_version, 1, 3)) {
        return hooks::runHooks(record.hooks.poststart, context);
    }
    hooks::runAllHooks(record.hooks.poststart, context, warn);
    return {};
}

// What follows a hook that failed after create: stop, destroy, poststop.
void stopAndDestroy(Container& container) {
    auto destroyed = killInit(container);
    if (destroyed) destroyed = destroyContainer(container);
    if (!destroyed) warn(destroyed.error());
}

}  // namespace

base::Error processError(const base::Error& error) {
    // The agent reports what vmexec met as an internal error, and everything that was wrong before
    // vmexec came into play (configuration, state, cgroup) by its own code. An errno stands only in
    // errors that arose in this program.
    if (error.code() != Code::kInternal || error.sysErrno() != 0) return error;
    return {error.code(), texts::kStartProcessPrefix + error.message()};
}

std::string writeOptions(const ProcessOptions& options) {
    nlohmann::ordered_json json{{"bundle", options.bundle},
                                {"no_pivot", options.no_pivot},
                                {"no_new_keyring", options.no_new_keyring},
                                {"preserve_fds", options.preserve_fds},
                                {"ignore_paused", options.ignore_paused}};
    // "auto" is for the agent to say, which is the same user and looks only once.
    if (options.rootless != "auto") json["rootless"] = options.rootless == "true";
    if (!options.cgroups.empty()) json["cgroups"] = options.cgroups;
    if (!options.cgroup_manager.empty()) json["cgroup_manager"] = options.cgroup_manager;
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<Container> openContainer(const Context& context, const std::string& id, Lock lock) {
    ARCA_CHECK(base::validateId(id));
    ARCA_TRY(StateStore store, StateStore::open(context.globals, StateStore::Missing::kAllow));
    ARCA_TRY(ContainerDir dir, store.find(id));
    if (lock == Lock::kTake) ARCA_CHECK(dir.lock());
    ARCA_TRY(Record record, dir.load());
    ARCA_TRY(std::unique_ptr<Driver> driver,
             openDriver({record.sandbox, record.sandbox_id, store.fd(), nullptr}));
    return Container{std::move(store), std::move(dir), std::move(record), std::move(driver)};
}

Result<CreatedContainer> createContainer(const Context& context, Action action,
                                         const SignalInbox& signals) {
    const Arguments& arguments = context.arguments;
    const std::string& id = arguments.positional().front();
    ARCA_CHECK(base::validateId(id));
    ARCA_TRY(Bundle bundle, loadBundle(arguments.text("bundle"), arguments.text("config")));
    const bool terminal = hasTerminal(bundle.spec);
    const bool detach = action == Action::kCreate || arguments.isSet("detach");
    ARCA_CHECK(checkTerminal(terminal, detach, arguments.given("console-socket")));
    ARCA_CHECK(checkCgroupsPath(bundle.spec.linux.cgroupsPath, context.globals));
    if (context.globals.systemd_cgroup) ARCA_CHECK(scopeFor(bundle.spec, id));
    if (context.globals.cgroups_disabled && bundle.spec.linux.resources) {
        ARCA_CHECK(checkNoLimits(*bundle.spec.linux.resources));
    }
    if (bundle.spec.process) {
        for (const std::string& entry : context.fds.env) bundle.spec.process->env.push_back(entry);
    }
    ARCA_TRY(const HandOver sockets,
             connectHandOver(arguments.text("console-socket"), arguments.text("pidfd-socket")));

    ARCA_TRY(StateStore store, StateStore::open(context.globals, StateStore::Missing::kMake));
    Record record = newRecord(context, id, bundle);
    ARCA_TRY(const Settings settings, chooseSandbox(context, bundle.spec.annotations, record));
    const bool had_hooks = hasCreateHooks(bundle.spec.hooks);
    ARCA_TRY(const spec::Hooks host_hooks,
             takeHostHooks(record.sandbox, settings.vm.guest_hooks, bundle.spec.hooks));
    record.hooks.poststart = host_hooks.poststart;
    record.hooks.poststop = host_hooks.poststop;
    ARCA_TRY(std::unique_ptr<Driver> driver,
             openDriver({record.sandbox, record.sandbox_id, store.fd(), &settings}));
    driver->setInterrupts(&signals);
    ARCA_TRY(ContainerDir dir, store.reserve(id));
    Container container{std::move(store), std::move(dir), std::move(record), std::move(driver)};
    auto made = makeInit(context, action, signals, bundle, host_hooks, sockets, container);
    if (!made) {
        undoCreate(container, had_hooks);
        return fail(std::move(made).error());
    }
    return CreatedContainer{std::move(container), std::move(made->terminal)};
}

Result<> startContainer(Container& container) {
    Record& record = container.record;
    auto started = container.driver->startProcess(container.dir, record, record.id);
    if (!started) {
        const base::Error error = processError(started.error());
        // A startContainer hook may have failed: stop, destroy, poststop (runtime.md, "Lifecycle",
        // step 7). Without any, a program that cannot be executed leaves a stopped container.
        // A guest's agent does that itself for hooks that it has run, which may be its own.
        if (!record.hooks.startContainer.empty() || container.driver->deletedByAgent(record.id)) {
            stopAndDestroy(container);
        }
        return fail(error);
    }
    record.stage = Stage::kRunning;
    ARCA_CHECK(container.dir.save(record));
    auto hooks = runPoststartHooks(record);
    if (!hooks) stopAndDestroy(container);
    return hooks;
}

Result<> killInit(Container& container) {
    const base::ProcessIdentity& init = container.record.init;
    auto pidfd = base::openPidfd(init);
    if (!pidfd) {
        if (pidfd.error().code() == Code::kNotFound) return {};
        return fail(std::move(pidfd).error());
    }
    auto sent = container.driver->signalInit(container.dir, container.record, SIGKILL);
    if (!sent && sent.error().code() != Code::kNotFound) return sent;
    // A guest that does not react can be ended from outside, so it gets less time.
    const auto patience = container.driver->sharesPids() ? kKillPatience : kGuestKillPatience;
    ARCA_TRY(const bool ended, base::waitExit(pidfd->get(), patience));
    if (!ended) return container.driver->endByForce(container.record);
    return {};
}

void reportLoss(Container& container, int exit_code) {
    constexpr int kKilled = 128 + SIGKILL;
    if (exit_code == kKilled) {
        const std::string reason = container.driver->endReason(container.record.id);
        if (reason.empty()) return;
        return base::log::error("container " + container.record.id + " was killed: " + reason);
    }
    if (exit_code != proto::kLostExitCode) return;
    const std::string reason = container.driver->lossReason();
    if (reason.empty()) return;
    base::log::error("container " + container.record.id + ": its sandbox was lost: " + reason);
}

Result<> destroyContainer(Container& container, PoststopHooks hooks) {
    const Record& record = container.record;
    auto deleted = container.driver->deleteProcess(record.id, record.id);
    if (!deleted) {
        // Without an agent there is nothing to undo where no agent has recorded anything.
        const bool recorded = ::faccessat(container.dir.fd(), "guest", F_OK, 0) == 0;
        if (recorded || deleted.error().code() != Code::kUnavailable) return deleted;
    }
    // Empty by now: systemd forgets it by itself should it not be reachable.
    auto stopped = stopScope(record);
    if (!stopped) base::log::warning(stopped.error().message());
    if (hooks == PoststopHooks::kRun && !record.hooks.poststop.empty()) {
        hooks::runAllHooks(record.hooks.poststop,
                           hookContext(record, "poststop", Status::kStopped, 0), warn);
    }
    return container.dir.remove();
}

}  // namespace arca::runtime
