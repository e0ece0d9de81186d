#include "vmexec/stage1.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <string>
#include <string_view>

#include "base/process.h"
#include "base/scope_exit.h"
#include "spec/plan.h"
#include "vmexec/channel.h"
#include "vmexec/exec_join.h"
#include "vmexec/id_maps.h"
#include "vmexec/init.h"
#include "vmexec/lsm.h"
#include "vmexec/mount_sources.h"
#include "vmexec/namespaces.h"
#include "vmexec/net_devices.h"
#include "vmexec/proc_fs.h"
#include "vmexec/process_limits.h"
#include "vmexec/process_scheduling.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;
using spec::NamespaceType;

namespace {

struct Received {
    spec::Plan plan;
    UniqueFd gate;
};

// Mapped, not read: what is parsed need not be copied first.
Result<spec::Plan> readPlan(int memfd) {
    struct stat st {};
    if (::fstat(memfd, &st) != 0) return failErrno("stat plan");
    const auto size = static_cast<size_t>(st.st_size);
    if (size == 0) return fail(Code::kInternal, "plan: empty");
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, memfd, 0);
    if (data == MAP_FAILED) return failErrno("map plan");
    const base::ScopeExit unmap([data, size] { (void)::munmap(data, size); });
    return spec::parsePlan({static_cast<const char*>(data), size});
}

// Preserved descriptors come from the caller at fixed numbers. One that is missing would be handed
// out to something of ours.
Result<> checkPreservedFds(const Received& received, int sync_fd) {
    const int count = received.plan.preserve_fds;
    for (int i = 0; i < count; ++i) {
        const int fd = 3 + i;
        if (fd != sync_fd && fd != received.gate.get() && ::fcntl(fd, F_GETFD) >= 0) continue;
        return fail(Code::kInvalidArgument,
                    "unable to stat preserved-fd " + std::to_string(i) + " (of " +
                        std::to_string(count) + "): bad file descriptor",
                    EBADF);
    }
    return {};
}

// Whatever else the caller left open is not for the container, nor for a process that waits in it.
void closeOthers(int first, int keep_a, int keep_b) {
    const int low = std::min(keep_a, keep_b);
    const int high = std::max(keep_a, keep_b);
    const auto close_range = [](int from, int to) {
        if (from <= to) (void)::syscall(SYS_close_range, from, to, 0);
    };
    close_range(first, low - 1);
    close_range(low + 1, high - 1);
    close_range(std::max(high + 1, first), std::numeric_limits<int>::max());
}

Result<Received> receivePlan(const Channel& channel) {
    ARCA_TRY(Channel::Received message, channel.expect(BodyMessage::kPlan, "kPlan"));
    if (message.fds.size() != 2)
        return fail(Code::kInternal, "kPlan: two descriptors belong to it");
    Received received;
    ARCA_TRY(received.plan, readPlan(message.fds[0].get()));
    received.gate = std::move(message.fds[1]);
    ARCA_CHECK(checkPreservedFds(received, channel.fd()));
    message.fds.clear();
    closeOthers(3 + received.plan.preserve_fds, channel.fd(), received.gate.get());
    return received;
}

// A process that cannot be told to go on is not left behind.
void killChild(const UniqueFd& pidfd) {
    (void)base::sendSignal(pidfd.get(), SIGKILL);
}

[[noreturn]] void reportPid(const Channel& channel, pid_t pid, const UniqueFd& pidfd) {
    const auto sent = channel.send(BodyMessage::kPid, pid, {}, pidfd.get());
    if (!sent) killChild(pidfd);
    ::_exit(sent ? 0 : 1);
}

// Properties that are inherited and that only the runtime's own user can set.
Result<> applyInherited(const spec::Plan& plan) {
    if (!plan.spec.process) return {};
    const spec::Process& process = *plan.spec.process;
    ARCA_CHECK(checkSecurityModules(process));
    if (process.oomScoreAdj) ARCA_CHECK(setOomScoreAdj(*process.oomScoreAdj));
    if (plan.kind == spec::PlanKind::kExec && process.execCPUAffinity)
        ARCA_CHECK(applyCpuAffinity(process.execCPUAffinity->initial));
    return {};
}

Result<> makeInit(Received received, Channel& channel) {
    const spec::Linux& config = received.plan.spec.linux;
    ARCA_TRY(NamespacePlan namespaces, openNamespaces(config.namespaces));
    ARCA_CHECK(applyInherited(received.plan));
    ARCA_TRY(NetDevices net_devices, NetDevices::open(config.netDevices));
    const bool new_userns = (namespaces.create & cloneFlag(NamespaceType::kUser)) != 0;
    const bool in_userns = new_userns || namespaces.user.valid();
    ARCA_CHECK(joinNamespaces(namespaces));
    ARCA_TRY(MountSources sources, openMountSources(received.plan, namespaces));
    ARCA_CHECK(joinUserNamespace(namespaces));
    UniqueFd pidfd;
    ARCA_TRY(const pid_t pid, cloneSibling(namespaces.create, pidfd));
    if (pid == 0) {
        initMain({.plan = std::move(received.plan),
                  .channel = std::move(channel),
                  .gate = std::move(received.gate),
                  .sources = std::move(sources),
                  .in_userns = in_userns});
    }
    Result<> outfitted;
    if (new_userns) outfitted = writeIdMaps(pid, config.uidMappings, config.gidMappings);
    if (outfitted) outfitted = net_devices.moveTo(pidfd.get());
    if (!outfitted) {
        killChild(pidfd);
        return outfitted;
    }
    reportPid(channel, pid, pidfd);
}

Result<> makeExec(Received received, Channel& channel) {
    ARCA_CHECK(applyInherited(received.plan));
    ARCA_TRY(JoinedContainer container, joinContainer(received.plan));
    UniqueFd pidfd;
    ARCA_TRY(const pid_t pid, cloneSibling(0, pidfd));
    if (pid == 0) {
        execMain({.plan = std::move(received.plan),
                  .channel = std::move(channel),
                  .gate = std::move(received.gate),
                  .container = std::move(container)});
    }
    reportPid(channel, pid, pidfd);
}

Result<> run(Channel& channel) {
    ARCA_TRY(Received received, receivePlan(channel));
    if (received.plan.kind == spec::PlanKind::kExec) return makeExec(std::move(received), channel);
    return makeInit(std::move(received), channel);
}

}  // namespace

void stage1Main(UniqueFd sync_socket) {
    Channel channel(std::move(sync_socket));
    const auto failed = run(channel);
    channel.die(failed.error());
}

}  // namespace arca::vmexec
