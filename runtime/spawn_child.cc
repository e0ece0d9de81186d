#include "runtime/spawn_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace arca::runtime {
namespace {

// A caller's SIG_IGN would survive exec, and so would our mask.
void resetSignals() noexcept {
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; ++number) (void)::sigaction(number, &plain, nullptr);
    sigset_t none;
    (void)::sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// False when the kernel is older than 5.11 or the numbers are wrong; errno says which.
bool closeOnExecFrom(unsigned first) noexcept {
    return ::syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
}

}  // namespace

// CHILD SIDE
[[noreturn]] void bodyChild(const BodyPlan& plan) noexcept {
    if (plan.null_fd >= 0) {
        for (int fd = 0; fd < 3; ++fd) {
            if (::dup2(plan.null_fd, fd) < 0) {
                *plan.error = errno;
                ::_exit(127);
            }
        }
    }
    // Set on all first and taken off one: nothing that the caller leaked is forgotten.
    if (!closeOnExecFrom(plan.first_closed) || ::fcntl(plan.sync_fd, F_SETFD, 0) != 0) {
        *plan.error = errno;
        ::_exit(127);
    }
    resetSignals();
    (void)::syscall(SYS_execveat, plan.program_fd, "", plan.argv, plan.envp, AT_EMPTY_PATH);
    *plan.error = errno;
    ::_exit(127);
}

// CHILD SIDE
[[noreturn]] void standInChild(const StandInPlan& plan) noexcept {
    const auto die = [&] {
        *plan.error = errno;
        ::_exit(127);
    };
    for (int fd = 0; fd < 3; ++fd) {
        if (::dup2(plan.stdio_fd, fd) < 0) die();
    }
    if (!closeOnExecFrom(3)) die();
    for (unsigned long i = 0; i < plan.kept_count; ++i) {
        if (::fcntl(plan.kept[i], F_SETFD, 0) != 0) die();
    }
    resetSignals();
    (void)::syscall(SYS_execveat, plan.program_fd, "", plan.argv, plan.envp, AT_EMPTY_PATH);
    die();
    __builtin_unreachable();
}

// CHILD SIDE
[[noreturn]] void agentChild(const AgentPlan& plan) noexcept {
    // A new session before the second fork: the grandchild is no leader, so that it can never get
    // a controlling terminal, and it is nobody's child but init's (or the subreaper's).
    (void)::setsid();
    const pid_t pid = ::fork();
    if (pid > 0) ::_exit(0);
    bool good = pid == 0;
    good = good && ::dup2(plan.null_fd, 0) >= 0 && ::dup2(plan.null_fd, 1) >= 0 &&
           ::dup2(plan.log_fd, 2) >= 0;
    for (int i = 0; i < plan.fd_count; ++i) good = good && ::dup2(plan.fds[i], 3 + i) >= 0;
    good = good && closeOnExecFrom(3U + static_cast<unsigned>(plan.fd_count)) && ::chdir("/") == 0;
    if (good) {
        // A caller's score (containerd's is near -1000) is not for the agent. Best effort.
        const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
            [[maybe_unused]] const ssize_t n = ::write(fd, "0", 1);
            (void)::close(fd);
        }
        (void)::umask(022);
        resetSignals();
        (void)::execve(plan.path, plan.argv, plan.envp);
    }
    const int error = errno;
    // Smaller than PIPE_BUF: whole or not at all.
    [[maybe_unused]] const ssize_t n = ::write(plan.report_fd, &error, sizeof error);
    ::_exit(127);
}

}  // namespace arca::runtime
