#include "vmexec/launch.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "vmexec/capabilities.h"
#include "vmexec/credentials.h"
#include "vmexec/exec_lookup.h"
#include "vmexec/gate.h"
#include "vmexec/lsm.h"
#include "vmexec/process_limits.h"
#include "vmexec/process_scheduling.h"
#include "vmexec/signals.h"

namespace arca::vmexec {

using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;

namespace {

constexpr mode_t kDefaultUmask = 0022;

// The runtime's /dev/null must not stay open in the container: its directory could be walked from
// there. What was /dev/null stays it, as the container's own.
Result<> reopenNullStdio(int root_fd) {
    UniqueFd null;
    for (int fd = 0; fd < 3; ++fd) {
        struct stat st {};
        if (::fstat(fd, &st) != 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) continue;
        if (!null.valid()) {
            auto own = base::openInRoot(root_fd, "/dev/null", O_RDWR | O_NOCTTY | O_NONBLOCK);
            if (!own) return {};  // a container without one keeps the runtime's
            if (::fstat(own->get(), &st) != 0 || !S_ISCHR(st.st_mode) ||
                st.st_rdev != makedev(1, 3))
                return {};
            if (::fcntl(own->get(), F_SETFL, O_RDWR) != 0) return failErrno("open /dev/null");
            null = std::move(*own);
        }
        if (::dup2(null.get(), fd) < 0) return failErrno("dup /dev/null");
    }
    return {};
}

// Loading a filter without no_new_privs takes CAP_SYS_ADMIN, and it is loaded last, because a
// filter made for the program may well refuse what leads there. So the waiting process keeps that
// one capability. The program does not get it: execve(2) makes its sets from the inheritable,
// bounding and ambient ones, whatever was permitted before.
bool keepsAdmin(const spec::Plan& plan) {
    return !plan.seccomp_program.empty() && !plan.spec.process->noNewPrivileges;
}

Result<> applyLimits(const spec::Plan& plan) {
    const spec::Process& process = *plan.spec.process;
    ARCA_CHECK(applyRlimits(process.rlimits));
    if (process.scheduler) ARCA_CHECK(applyScheduler(*process.scheduler));
    if (process.ioPriority) ARCA_CHECK(applyIoPriority(*process.ioPriority));
    if (plan.spec.linux.personality) ARCA_CHECK(applyPersonality(*plan.spec.linux.personality));
    if (plan.spec.linux.memoryPolicy) ARCA_CHECK(applyMemoryPolicy(*plan.spec.linux.memoryPolicy));
    return {};
}

// Groups, user and working directory. The directory is tried as the starting user first and, only
// when that one may not enter it, as the program's user: it need be open to one of the two.
Result<> becomeUser(const LaunchInput& input) {
    const spec::Process& process = *input.plan.spec.process;
    giveStdio(process.user.uid);
    const auto entered = enterCwd(input.root.get(), process.cwd);
    if (!entered && entered.error().sysErrno() != EACCES) return fail(entered.error());
    ARCA_CHECK(changeUser(process.user));
    if (!entered) ARCA_CHECK(enterCwd(input.root.get(), process.cwd));
    (void)::umask(process.user.umask.value_or(kDefaultUmask));
    return checkCwdInsideRoot();
}

Result<> becomeUserWithCapabilities(const LaunchInput& input) {
    const spec::Process& process = *input.plan.spec.process;
    const bool keep_admin = keepsAdmin(input.plan);
    CapabilitySets now;
    CapabilityPlan plan;
    if (process.capabilities) {
        ARCA_TRY(now, currentCapabilities(namedCapabilities(*process.capabilities)));
        plan = planCapabilities(*process.capabilities, now);
        for (const std::string& text : plan.warnings) input.channel.warn(text);
        // Before the user changes: it takes CAP_SETPCAP.
        ARCA_CHECK(limitBounding(plan.sets.bounding));
    }
    // Otherwise the change of user would clear what is to be set afterwards.
    if ((process.capabilities || keep_admin) && ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
        return failErrno("keep capabilities");
    ARCA_CHECK(becomeUser(input));
    if (!process.capabilities && !keep_admin) return {};
    if (!process.capabilities) {
        ARCA_TRY(now, currentCapabilities(0));
        return setCapabilities(now.effective | (kCapSysAdmin & now.permitted), now.permitted,
                               now.inheritable);
    }
    const uint64_t extra = keep_admin ? kCapSysAdmin & now.permitted : 0;
    ARCA_CHECK(setCapabilities(plan.sets.effective | extra, plan.sets.permitted | extra,
                               plan.sets.inheritable));
    return setAmbient(plan.sets.ambient);
}

// The order: what needs privilege or a descriptor comes before the user changes; the user before
// the search for the program, which asks whether that user may execute it.
Result<std::string> applyProcess(LaunchInput& input) {
    const spec::Process& process = *input.plan.spec.process;
    if (input.console) {
        ARCA_CHECK(useConsole(input.console->slave.get(), process.user.uid));
    } else {
        ARCA_CHECK(reopenNullStdio(input.root.get()));
    }
    if (input.proc) ARCA_CHECK(setExecLabels(process, *input.proc));
    input.proc.reset();
    ARCA_CHECK(applyLimits(input.plan));
    if (process.noNewPrivileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return failErrno("set no_new_privs");
    ARCA_CHECK(becomeUserWithCapabilities(input));
    if (process.args.empty())
        return fail(base::Code::kInvalidArgument, "process.args must not be empty");
    return findProgram(process.args.front(), process.env);
}

GateInput gateInput(LaunchInput& input, std::string program) {
    GateInput gate;
    spec::Plan& plan = input.plan;
    gate.listener = std::move(input.gate);
    gate.signals = std::move(input.signals);
    gate.program = std::move(program);
    gate.preserve_fds = plan.preserve_fds;
    if (plan.spec.process) {
        spec::Process& process = *plan.spec.process;
        gate.args = std::move(process.args);
        gate.env = std::move(process.env);
        gate.cwd = std::move(process.cwd);
        gate.terminal = process.terminal;
    }
    gate.seccomp_program = std::move(plan.seccomp_program);
    gate.seccomp_flags = plan.seccomp_flags;
    gate.seccomp_notify = plan.seccomp_notify;
    if (plan.kind == spec::PlanKind::kInit && !plan.spec.hooks.startContainer.empty()) {
        gate.start_hooks = std::move(plan.spec.hooks.startContainer);
        gate.state = {.ociVersion = plan.spec.ociVersion,
                      .id = plan.container_id,
                      .status = "created",
                      .pid = ::getpid(),
                      .bundle = plan.bundle,
                      .annotations = plan.spec.annotations};
    }
    return gate;
}

Result<> reportReady(LaunchInput& input) {
    // Nothing of the runtime's is open any more when the agent hears of it: a container with the
    // same pid namespace could look.
    input.root.reset();
    const int master = input.console ? input.console->master.get() : -1;
    ARCA_CHECK(input.channel.send(BodyMessage::kReady, 0, {}, master));
    input.console.reset();
    ARCA_CHECK(input.channel.expect(BodyMessage::kCommit, "kCommit", input.signals.get()));
    input.channel.close();
    return {};
}

// Its own function, so that everything of the input is freed before the wait begins.
Result<GateInput> makeReady(LaunchInput input) {
    std::string program;
    if (input.plan.spec.process) {
        auto applied = applyProcess(input);
        if (!applied) input.channel.die(applied.error());
        program = std::move(*applied);
    }
    const auto ready = reportReady(input);
    if (!ready) ::_exit(1);  // the agent is gone: there is nobody to tell
    return gateInput(input, std::move(program));
}

}  // namespace

bool needsProcForLabels(const spec::Spec& spec) {
    return spec.process &&
           (!spec.process->apparmorProfile.empty() || !spec.process->selinuxLabel.empty());
}

void launch(LaunchInput input) {
    auto gate = makeReady(std::move(input));
    waitAndExecute(std::move(*gate));
}

}  // namespace arca::vmexec
