#include "vmexec/namespaces.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/files.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using spec::NamespaceType;

namespace {

struct Kind {
    NamespaceType type;
    uint64_t flag;
    std::string_view name;
};
// In the order of joining. The mount namespace comes late because it takes the root directory with
// it; pid and time only matter for what is cloned or executed afterwards.
constexpr std::array kKinds = {
    Kind{NamespaceType::kIpc, CLONE_NEWIPC, "ipc"},
    Kind{NamespaceType::kUts, CLONE_NEWUTS, "uts"},
    Kind{NamespaceType::kNetwork, CLONE_NEWNET, "net"},
    Kind{NamespaceType::kPid, CLONE_NEWPID, "pid"},
    Kind{NamespaceType::kCgroup, CLONE_NEWCGROUP, "cgroup"},
    Kind{NamespaceType::kTime, CLONE_NEWTIME, "time"},
    Kind{NamespaceType::kMount, CLONE_NEWNS, "mnt"},
    Kind{NamespaceType::kUser, CLONE_NEWUSER, "user"},
};

const Kind& kindOf(NamespaceType type) {
    return *std::find_if(kKinds.begin(), kKinds.end(),
                         [type](const Kind& kind) { return kind.type == type; });
}

Result<UniqueFd> openChecked(const spec::Namespace& ns) {
    const Kind& kind = kindOf(ns.type);
    const std::string what =
        "namespace path " + ns.path + " (" + std::string(kind.name) + " namespace)";
    UniqueFd fd(::open(ns.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid()) return failErrno(what);
    const int type = ::ioctl(fd.get(), NS_GET_NSTYPE);
    if (type < 0) return fail(Code::kInvalidArgument, what + ": not a namespace", errno);
    if (static_cast<uint64_t>(static_cast<unsigned>(type)) != kind.flag)
        return fail(Code::kInvalidArgument, what + ": is a namespace of another type", EINVAL);
    return fd;
}

Result<> join(const JoinTarget& target) {
    const Kind& kind = kindOf(target.type);
    if (::setns(target.fd.get(), static_cast<int>(kind.flag)) != 0)
        return failErrno("join " + std::string(kind.name) + " namespace " + target.path);
    return {};
}

}  // namespace

uint64_t cloneFlag(NamespaceType type) {
    return kindOf(type).flag;
}

std::string_view nsName(NamespaceType type) {
    return kindOf(type).name;
}

Result<std::pair<uint64_t, uint64_t>> namespaceIdentity(const std::string& who,
                                                        std::string_view name) {
    const std::string path = "/proc/" + who + "/ns/" + std::string(name);
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return failErrno("stat " + path);
    return std::pair<uint64_t, uint64_t>(st.st_dev, st.st_ino);
}

Result<NamespacePlan> openNamespaces(const std::vector<spec::Namespace>& namespaces) {
    NamespacePlan plan;
    for (const Kind& kind : kKinds) {
        for (const spec::Namespace& ns : namespaces) {
            if (ns.type != kind.type) continue;
            const bool by_init =
                kind.type == NamespaceType::kTime || kind.type == NamespaceType::kCgroup;
            if (ns.path.empty()) {
                if (!by_init) plan.create |= kind.flag;
                continue;
            }
            ARCA_TRY(UniqueFd fd, openChecked(ns));
            if (kind.type != NamespaceType::kUser) {
                plan.join.push_back({kind.type, ns.path, std::move(fd)});
                continue;
            }
            struct stat st {};
            if (::fstat(fd.get(), &st) != 0) return failErrno("stat " + ns.path);
            ARCA_TRY(const auto own, namespaceIdentity("self", "user"));
            if (own == std::pair<uint64_t, uint64_t>(st.st_dev, st.st_ino)) continue;
            plan.user = std::move(fd);
            plan.user_path = ns.path;
        }
    }
    return plan;
}

Result<> joinNamespaces(NamespacePlan& plan) {
    std::vector<JoinTarget> refused;
    for (JoinTarget& target : plan.join) {
        auto joined = join(target);
        if (joined) continue;
        if (joined.error().sysErrno() != EPERM || !plan.user.valid()) return joined;
        refused.push_back(std::move(target));
    }
    plan.join = std::move(refused);
    return {};
}

Result<> joinUserNamespace(NamespacePlan& plan) {
    if (!plan.user.valid()) return {};
    if (::setns(plan.user.get(), CLONE_NEWUSER) != 0)
        return failErrno("join user namespace " + plan.user_path);
    for (const JoinTarget& target : plan.join) ARCA_CHECK(join(target));
    plan.join.clear();
    plan.user.reset();
    return {};
}

Result<> enterNewTimeNamespace(const std::map<std::string, spec::TimeOffset>& offsets) {
    if (::unshare(CLONE_NEWTIME) != 0) return failErrno("make time namespace");
    std::string text;
    for (const auto& [clock, offset] : offsets) {
        text += clock + " " + std::to_string(offset.secs) + " " + std::to_string(offset.nanosecs) +
                "\n";
    }
    // Offsets can be set until the first process is in the namespace; unshare(2) only chose it for
    // the children to come.
    if (!text.empty()) {
        auto written = base::writeControlFile(AT_FDCWD, "/proc/self/timens_offsets", text);
        if (!written) return fail(std::move(written).error().withContext("set timeOffsets"));
    }
    ARCA_TRY(const UniqueFd own,
             base::openAt(AT_FDCWD, "/proc/self/ns/time_for_children", O_RDONLY));
    if (::setns(own.get(), CLONE_NEWTIME) != 0) return failErrno("enter time namespace");
    return {};
}

Result<pid_t> cloneSibling(uint64_t flags, UniqueFd& pidfd) {
    int number = -1;
    clone_args args{};
    args.flags = flags | CLONE_PARENT | CLONE_PIDFD;
    args.pidfd = reinterpret_cast<uint64_t>(&number);
    // exit_signal stays 0: with CLONE_PARENT the kernel takes the caller's own.
    const long pid = ::syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) return failErrno("clone");
    if (pid > 0) pidfd = UniqueFd(number);
    return static_cast<pid_t>(pid);
}

}  // namespace arca::vmexec
