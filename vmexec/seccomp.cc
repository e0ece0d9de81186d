#include "vmexec/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <limits>

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

namespace {

// The listener, or 0 without SECCOMP_FILTER_FLAG_NEW_LISTENER.
Result<int> load(std::string_view program, uint32_t flags) {
    const size_t count = program.size() / sizeof(sock_filter);
    if (program.size() % sizeof(sock_filter) != 0 ||
        count > std::numeric_limits<unsigned short>::max())
        return fail(Code::kInternal, "load seccomp filter: not a program");
    sock_fprog filter{};
    filter.len = static_cast<unsigned short>(count);
    // The kernel copies it and asks for no alignment.
    filter.filter = reinterpret_cast<sock_filter*>(const_cast<char*>(
        program.data()));  // NOLINT(cppcoreguidelines-pro-type-const-cast): the ABI's type
    const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
    if (result < 0) return failErrno("load seccomp filter");
    return static_cast<int>(result);
}

constexpr int kNotYet = -1;
constexpr int kNever = -2;

struct HandOver {
    const std::function<void(int)>& action;
    std::atomic<int> listener{kNotYet};
    std::atomic<bool> done{false};
};

void* handOverThread(void* argument) {
    HandOver& work = *static_cast<HandOver*>(argument);
    // Polled: the other thread cannot be asked for a system call that would wake this one.
    const timespec pause{0, 20'000};
    while (work.listener == kNotYet) (void)::nanosleep(&pause, nullptr);
    if (work.listener != kNever) work.action(work.listener);
    work.done = true;
    return nullptr;
}

}  // namespace

Result<> loadSeccomp(std::string_view program, uint32_t flags) {
    ARCA_CHECK(load(program, flags));
    return {};
}

Result<> loadSeccompWithListener(std::string_view program, uint32_t flags,
                                 const std::function<void(int)>& hand_over) {
    HandOver work{hand_over};
    pthread_t thread{};
    const int error = ::pthread_create(&thread, nullptr, &handOverThread, &work);
    if (error != 0) return failErrno("make the thread that hands the seccomp listener over", error);
    const auto listener = load(program, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER);
    work.listener = listener ? *listener : kNever;
    if (!listener) {
        (void)::pthread_join(thread, nullptr);
        return fail(listener.error());
    }
    // Not even a wait: futex(2) is the filter's to refuse as well.
    while (!work.done) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    return {};
}

}  // namespace arca::vmexec
