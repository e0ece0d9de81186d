#include "vsock/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "base/log.h"

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
namespace log = base::log;

Result<> setCapabilities(uint64_t kept) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> data{};
    for (size_t i = 0; i < data.size(); ++i) {
        const auto half = static_cast<uint32_t>(kept >> (32U * i));
        data[i] = {half, half, 0};
    }
    if (::syscall(SYS_capset, &header, data.data()) != 0) return failErrno("set capabilities");
    return {};
}

Result<> dropRoot(const std::optional<UserId>& user) {
    if (::unshare(CLONE_NEWNET) != 0) {
        if (errno != EPERM) return failErrno("make a network namespace");
        log::debug("no right to make a network namespace: staying in the caller's");
    }
    if (::chroot(".") != 0) return failErrno("chroot into the socket directory");
    // From the highest down until the kernel knows the number; PR_CAPBSET_DROP needs CAP_SETPCAP,
    // without which the bounding set is the caller's business.
    for (int capability = 63; capability >= 0; --capability) {
        if (::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 &&
            ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EPERM) {
            return failErrno("drop a capability from the bounding set");
        }
    }
    if (!user) return setCapabilities(0);
    // Groups while that is still allowed, capabilities kept over the change of user.
    if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return failErrno("keep capabilities");
    if (::setgroups(0, nullptr) != 0) return failErrno("drop groups");
    if (::setresgid(user->group, user->group, user->group) != 0) return failErrno("set group");
    if (::setresuid(user->user, user->user, user->user) != 0) return failErrno("set user");
    return setCapabilities(uint64_t{1} << CAP_DAC_OVERRIDE);
}

// One allowed system call with up to one condition on an argument.
struct Allowed {
    int call;
    scmp_arg_cmp condition;
    unsigned conditions;
};

constexpr Allowed always(int call) {
    return {call, {}, 0};
}

std::vector<Allowed> allowedCalls() {
    const auto equal = [](unsigned argument, uint64_t value) {
        return scmp_arg_cmp{argument, SCMP_CMP_EQ, value, 0};
    };
    const auto without = [](unsigned argument, uint64_t bits) {
        return scmp_arg_cmp{argument, SCMP_CMP_MASKED_EQ, bits, 0};
    };
    return {
        // The loop and its timers.
        always(SCMP_SYS(epoll_wait)),
        always(SCMP_SYS(epoll_pwait)),
        always(SCMP_SYS(epoll_ctl)),
        always(SCMP_SYS(clock_gettime)),
        // Sockets: accept clients, dial services, move bytes.
        always(SCMP_SYS(accept4)),
        {SCMP_SYS(socket), equal(0, AF_UNIX), 1},
        always(SCMP_SYS(connect)),
        {SCMP_SYS(getsockopt), equal(1, SOL_SOCKET), 1},
        always(SCMP_SYS(sendmsg)),
        always(SCMP_SYS(recvmsg)),
        always(SCMP_SYS(sendto)),
        always(SCMP_SYS(recvfrom)),
        always(SCMP_SYS(shutdown)),
        always(SCMP_SYS(close)),
        // Interrupts of the guest, and the log.
        always(SCMP_SYS(write)),
        {SCMP_SYS(fcntl), equal(1, F_GETFL), 1},
        {SCMP_SYS(fcntl), equal(1, F_SETFL), 1},
        // Guest memory, and memory of our own; none of it executable.
        {SCMP_SYS(mmap), without(2, PROT_EXEC), 1},
        {SCMP_SYS(mprotect), without(2, PROT_EXEC), 1},
        always(SCMP_SYS(munmap)),
        always(SCMP_SYS(mremap)),
        always(SCMP_SYS(madvise)),
        always(SCMP_SYS(brk)),
        always(SCMP_SYS(fstat)),
        {SCMP_SYS(newfstatat), equal(3, AT_EMPTY_PATH), 1},
        always(SCMP_SYS(getrandom)),  // malloc, at its first use
        always(SCMP_SYS(futex)),
        // Dying in order.
        always(SCMP_SYS(restart_syscall)),
        always(SCMP_SYS(rt_sigreturn)),
        always(SCMP_SYS(rt_sigprocmask)),
        {SCMP_SYS(rt_sigaction), equal(0, SIGABRT), 1},
        always(SCMP_SYS(getpid)),
        always(SCMP_SYS(gettid)),
        {SCMP_SYS(tgkill), equal(2, SIGABRT), 1},
        always(SCMP_SYS(exit)),
        always(SCMP_SYS(exit_group)),
        always(SCMP_SYS(time)),
    };
}

Result<> loadFilter() {
    const std::unique_ptr<std::remove_pointer_t<scmp_filter_ctx>, void (*)(scmp_filter_ctx)> filter(
        ::seccomp_init(SCMP_ACT_KILL_PROCESS), &::seccomp_release);
    if (!filter) return fail(Code::kSystem, "seccomp: no memory");
    for (const Allowed& allowed : allowedCalls()) {
        const int failed =
            allowed.conditions == 0
                ? ::seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, allowed.call, 0, nullptr)
                : ::seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, allowed.call, 1,
                                           &allowed.condition);
        if (failed != 0) {
            return fail(Code::kSystem, "seccomp rule for call " + std::to_string(allowed.call) +
                                           ": " + base::errnoText(-failed));
        }
    }
    if (const int failed = ::seccomp_load(filter.get()); failed != 0) {
        return fail(Code::kSystem, "load the seccomp filter: " + base::errnoText(-failed));
    }
    return {};
}

}  // namespace

Result<> confine(const Confinement& confinement) {
    // The C library reads the time zone's file at the first use of a calendar time, which is when
    // the log has something to say: now, while it can.
    ::tzset();
    if (::fchdir(confinement.working_directory) != 0) return failErrno("enter socket directory");
    if (::geteuid() == 0) {
        ARCA_CHECK(dropRoot(confinement.user));
    } else if (confinement.user) {
        return fail(Code::kPermissionDenied, "only root can become another user");
    }
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return failErrno("set no_new_privs");
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return failErrno("set undumpable");
    return loadFilter();
}

}  // namespace arca::vsock
