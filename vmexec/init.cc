#include "vmexec/init.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "hooks/hook_runner.h"
#include "spec/sysctl.h"
#include "vmexec/console.h"
#include "vmexec/credentials.h"
#include "vmexec/device_nodes.h"
#include "vmexec/keyring.h"
#include "vmexec/launch.h"
#include "vmexec/masked_paths.h"
#include "vmexec/mounts.h"
#include "vmexec/namespaces.h"
#include "vmexec/network.h"
#include "vmexec/proc_fs.h"
#include "vmexec/rootfs.h"
#include "vmexec/signals.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;
using spec::NamespaceType;

namespace {

// What is asked of the kernel before any mount.
Result<> setUpNamespaces(const InitInput& input) {
    const spec::Spec& spec = input.plan.spec;
    if (::setsid() < 0) return failErrno("setsid");
    // Now that the process is in its cgroup: that one becomes the root of what it sees.
    if (spec.newNamespace(NamespaceType::kCgroup) && ::unshare(CLONE_NEWCGROUP) != 0)
        return failErrno("make cgroup namespace");
    if (spec.newNamespace(NamespaceType::kTime))
        ARCA_CHECK(enterNewTimeNamespace(spec.linux.timeOffsets));
    if (!input.plan.no_new_keyring) {
        const auto joined = joinSessionKeyring(input.plan.container_id);
        if (!joined) input.channel.warn(joined.error().message());
    }
    if (spec.newNamespace(NamespaceType::kNetwork)) ARCA_CHECK(bringUpLoopback());
    return {};
}

Result<> setNames(const spec::Spec& spec) {
    if (!spec.hostname.empty() && ::sethostname(spec.hostname.data(), spec.hostname.size()) != 0)
        return failErrno("set hostname");
    if (!spec.domainname.empty() &&
        ::setdomainname(spec.domainname.data(), spec.domainname.size()) != 0)
        return failErrno("set domainname");
    return {};
}

Result<> setSysctls(const spec::Spec& spec, const ProcFs& proc) {
    for (const auto& [key, value] : spec.linux.sysctl) {
        const auto path = spec::sysctlPath(key);
        if (!path) return fail(Code::kInvalidArgument, "sysctl \"" + key + "\" is no sysctl key");
        auto written = proc.write("sys/" + *path, value);
        if (!written) return fail(std::move(written).error().withContext("sysctl " + key));
    }
    return {};
}

std::vector<std::string> ownEnvironment() {
    std::vector<std::string> env;
    for (char** entry = environ; *entry != nullptr; ++entry) env.emplace_back(*entry);
    return env;
}

Result<> runCreateContainerHooks(const spec::Plan& plan, int root_fd) {
    const auto& list = plan.spec.hooks.createContainer;
    if (list.empty()) return {};
    return hooks::runHooks(list, {.kind = "createContainer",
                                  .state = {.ociVersion = plan.spec.ociVersion,
                                            .id = plan.container_id,
                                            .status = "created",
                                            .pid = ::getpid(),
                                            .bundle = plan.bundle,
                                            .annotations = plan.spec.annotations},
                                  .cwd = base::fdPath(root_fd),
                                  .default_env = ownEnvironment()});
}

Result<> waitForHostHooks(const InitInput& input, int signal_fd) {
    if (!input.plan.wait_for_hooks) return {};
    ARCA_CHECK(input.channel.send(BodyMessage::kMounted));
    ARCA_CHECK(input.channel.expect(BodyMessage::kHooksRan, "kHooksRan", signal_fd));
    return {};
}

// Everything inside the rootfs up to the point where its new root can be entered. The runtime's own
// root is still in place: its /proc and /dev are what is trusted here.
Result<> fillRoot(InitInput& input, LaunchInput& next) {
    const spec::Spec& spec = input.plan.spec;
    const int root = next.root.get();
    MountContext mounts{.plan = input.plan,
                        .root_fd = root,
                        .sources = input.sources,
                        .channel = input.channel,
                        .in_userns = input.in_userns,
                        .read_only_last = {}};
    ARCA_CHECK(makeMounts(mounts));
    ARCA_CHECK(makeDevices({.spec = spec,
                            .root_fd = root,
                            .channel = input.channel,
                            .dev_is_bind = mounts.dev_is_bind}));
    ARCA_CHECK(waitForHostHooks(input, next.signals.get()));
    ARCA_CHECK(runCreateContainerHooks(input.plan, root));
    if (spec.process) makeCwd(root, spec.process->cwd);
    if (spec.process && spec.process->terminal) {
        ARCA_TRY(next.console, openConsole(root, spec.process->consoleSize));
        ARCA_CHECK(bindConsole(root, next.console->slave.get()));
    }
    ARCA_CHECK(sealMounts(mounts));
    if (next.proc) ARCA_CHECK(setSysctls(spec, *next.proc));
    ARCA_CHECK(makePathsReadOnly(root, spec.linux.readonlyPaths));
    ARCA_CHECK(maskPaths(root, spec.linux.maskedPaths));
    if (spec.root->readonly) ARCA_CHECK(makeRootReadOnly(root));
    return {};
}

Result<> makeContainer(InitInput& input, LaunchInput& next) {
    ARCA_TRY(next.signals, openSignalFd());
    ARCA_CHECK(input.channel.expect(BodyMessage::kGo, "kGo", next.signals.get()));
    const spec::Spec& spec = input.plan.spec;
    if (!spec.root) return fail(Code::kInvalidArgument, "root: is missing");
    // Modes are the ones asked for; the program's own umask is set when its user is.
    (void)::umask(0);
    ARCA_CHECK(setUpNamespaces(input));
    if (!spec.linux.sysctl.empty() || needsProcForLabels(spec)) {
        ARCA_TRY(next.proc, ProcFs::open());
    }
    ARCA_TRY(next.root, prepareRoot(input.plan, std::move(input.sources.rootfs)));
    // Not earlier: the way to the rootfs may be open to the runtime's user alone.
    if (input.in_userns) ARCA_CHECK(becomeNamespaceRoot());
    ARCA_CHECK(fillRoot(input, next));
    ARCA_CHECK(setNames(spec));
    return enterRoot(input.plan, next.root.get());
}

}  // namespace

void initMain(InitInput input) {
    LaunchInput next;
    const auto made = makeContainer(input, next);
    if (!made) input.channel.die(made.error());
    next.plan = std::move(input.plan);
    next.channel = std::move(input.channel);
    next.gate = std::move(input.gate);
    input.sources = MountSources();
    launch(std::move(next));
}

}  // namespace arca::vmexec
