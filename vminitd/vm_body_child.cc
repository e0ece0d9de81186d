#include "vminitd/vm_body_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace arca::vminitd {
namespace {

// What the agent ignores would stay ignored across exec, and so would its mask.
void resetSignals() noexcept {
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; ++number) (void)::sigaction(number, &plain, nullptr);
    sigset_t none;
    (void)::sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The agent's protection is not for containers.
void resetOomScore() noexcept {
    const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    [[maybe_unused]] const ssize_t n = ::write(fd, "0", 1);
    (void)::close(fd);
}

}  // namespace

// CHILD SIDE
[[noreturn]] void vmBodyChild(const VmBodyPlan& plan) noexcept {
    bool good = true;
    for (int fd = 0; fd < 3; ++fd) good = good && ::dup2(plan.stdio[fd], fd) >= 0;
    // Set on all first and taken off one: nothing of the agent's is forgotten.
    good = good && ::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
    good = good && ::fcntl(plan.sync_fd, F_SETFD, 0) == 0;
    if (good) {
        resetOomScore();
        resetSignals();
        (void)::syscall(SYS_execveat, plan.program_fd, "", plan.argv, plan.envp, AT_EMPTY_PATH);
    }
    *plan.error = errno;
    ::_exit(127);
}

}  // namespace arca::vminitd
