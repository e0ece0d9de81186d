#include "vmexec/exec_join.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "base/files.h"
#include "base/mount_api.h"
#include "base/process.h"
#include "vmexec/console.h"
#include "vmexec/credentials.h"
#include "vmexec/keyring.h"
#include "vmexec/launch.h"
#include "vmexec/namespaces.h"
#include "vmexec/process_scheduling.h"
#include "vmexec/signals.h"

namespace arca::vmexec {

using base::fail;
using base::failErrno;
using base::mountIdOf;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;
using spec::NamespaceType;

namespace {

constexpr std::array kJoined = {NamespaceType::kUser,    NamespaceType::kMount, NamespaceType::kPid,
                                NamespaceType::kNetwork, NamespaceType::kIpc,   NamespaceType::kUts,
                                NamespaceType::kCgroup,  NamespaceType::kTime};

// CLONE_NEW* of the namespaces that process `pid` does not share with the caller.
Result<uint64_t> differingNamespaces(pid_t pid) {
    uint64_t flags = 0;
    for (const NamespaceType type : kJoined) {
        const std::string_view name = nsName(type);
        const auto own = namespaceIdentity("self", name);
        if (!own) {
            // A kernel without this type.
            if (own.error().sysErrno() == ENOENT) continue;
            return fail(own.error());
        }
        ARCA_TRY(const auto theirs, namespaceIdentity(std::to_string(pid), name));
        if (*own != theirs) flags |= cloneFlag(type);
    }
    return flags;
}

Result<bool> isOwnRoot(int root_fd) {
    ARCA_TRY(const UniqueFd own, base::openAt(AT_FDCWD, "/", O_PATH | O_DIRECTORY));
    struct stat a {};
    struct stat b {};
    if (::fstat(own.get(), &a) != 0 || ::fstat(root_fd, &b) != 0) return failErrno("stat /");
    ARCA_TRY(const uint64_t own_mount, mountIdOf(own.get()));
    ARCA_TRY(const uint64_t mount, mountIdOf(root_fd));
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino && own_mount == mount;
}

// Joining the mount namespace gives its root; a container that was entered by chroot has another.
Result<> enterRootOf(int root_fd) {
    ARCA_TRY(const bool own, isOwnRoot(root_fd));
    if (!own) {
        if (::fchdir(root_fd) != 0) return failErrno("chdir to the container's root");
        if (::chroot(".") != 0) return failErrno("chroot to the container's root");
    }
    if (::chdir("/") != 0) return failErrno("chdir to /");
    return {};
}

}  // namespace

Result<JoinedContainer> joinContainer(const spec::Plan& plan) {
    const base::ProcessIdentity init{plan.init_pid, plan.init_start_time_ticks};
    ARCA_TRY(const UniqueFd pidfd, base::openPidfd(init));
    ARCA_TRY(const uint64_t flags, differingNamespaces(init.pid));
    JoinedContainer joined;
    ARCA_TRY(joined.root, base::openAt(AT_FDCWD, "/proc/" + std::to_string(init.pid) + "/root",
                                       O_PATH | O_DIRECTORY));
    // The number may have been reused between the first look and the last; the descriptor was not.
    if (!base::isAlive(init)) {
        return fail(base::Code::kFailedPrecondition, "container init is not running", ESRCH);
    }
    if (needsProcForLabels(plan.spec)) {
        ARCA_TRY(joined.proc, ProcFs::open());
    }
    // All or none; the kernel takes the user namespace first, whose privileges the others need.
    if (flags != 0 && ::setns(pidfd.get(), static_cast<int>(flags)) != 0)
        return failErrno("join the container's namespaces");
    joined.entered_userns = (flags & CLONE_NEWUSER) != 0;
    ARCA_CHECK(enterRootOf(joined.root.get()));
    return joined;
}

namespace {

Result<> prepareExec(ExecInput& input, LaunchInput& next) {
    ARCA_TRY(next.signals, openSignalFd());
    ARCA_CHECK(input.channel.expect(BodyMessage::kGo, "kGo", next.signals.get()));
    (void)::umask(0);
    if (::setsid() < 0) return failErrno("setsid");
    if (!input.plan.no_new_keyring) {
        const auto joined = joinSessionKeyring(input.plan.container_id);
        if (!joined) input.channel.warn(joined.error().message());
    }
    if (!input.plan.spec.process) return fail(base::Code::kInvalidArgument, "process: is missing");
    const spec::Process& process = *input.plan.spec.process;
    // After the move into the container's cgroup, whose CPUs bound it.
    if (process.execCPUAffinity) ARCA_CHECK(applyCpuAffinity(process.execCPUAffinity->final_list));
    if (input.container.entered_userns) ARCA_CHECK(becomeNamespaceRoot());
    makeCwd(input.container.root.get(), process.cwd);
    if (process.terminal) {
        ARCA_TRY(next.console, openConsole(input.container.root.get(), process.consoleSize));
    }
    return {};
}

}  // namespace

void execMain(ExecInput input) {
    LaunchInput next;
    const auto prepared = prepareExec(input, next);
    if (!prepared) input.channel.die(prepared.error());
    next.plan = std::move(input.plan);
    next.channel = std::move(input.channel);
    next.gate = std::move(input.gate);
    next.root = std::move(input.container.root);
    next.proc = std::move(input.container.proc);
    launch(std::move(next));
}

}  // namespace arca::vmexec
