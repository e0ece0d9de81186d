#include "runtime/monitor/spawn_child.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace arca::runtime {

// CHILD SIDE
[[noreturn]] void helperChild(const HelperPlan& plan) noexcept {
    const auto die = [&] {
        const int error = errno;
        // Smaller than PIPE_BUF: whole or not at all.
        [[maybe_unused]] const ssize_t n = ::write(plan.report_fd, &error, sizeof error);
        ::_exit(127);
    };
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) die();
    // It may have died before that.
    if (::getppid() != plan.parent_pid) ::_exit(127);
    // A session of its own: a ^C at the terminal of whoever started all this is not for it.
    (void)::setsid();
    if (plan.without_network && ::unshare(CLONE_NEWNET) != 0) die();
    if (::dup2(plan.null_fd, 0) < 0 || ::dup2(plan.output_fd, 1) < 0 ||
        ::dup2(plan.output_fd, 2) < 0) {
        die();
    }
    int next = 3;
    for (size_t i = 0; i < plan.fd_count; ++i) {
        if (::dup2(plan.fds[i], next) < 0) die();
        ++next;
    }
    if (::syscall(SYS_close_range, next, ~0U, CLOSE_RANGE_CLOEXEC) != 0) die();
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; ++number) (void)::sigaction(number, &plain, nullptr);
    sigset_t none;
    (void)::sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)::execve(plan.path, plan.argv, plan.envp);
    die();
    __builtin_unreachable();
}

}  // namespace arca::runtime
