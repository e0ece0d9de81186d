#include "base/exec_child.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace arca::base {
namespace {

// CHILD SIDE of vfork(2), which shares our memory: `error` is where the parent finds it.
[[noreturn]] void programChild(const ProgramPlan& plan, volatile int* error) noexcept {
    bool good = true;
    for (int fd = 0; fd < 3; ++fd) {
        good = good && (plan.stdio[fd] < 0 || ::dup2(plan.stdio[fd], fd) >= 0);
    }
    // Set on all first and taken off some: nothing that anybody leaked is forgotten.
    good = good && closeAtExecFrom(plan.first_closed);
    for (size_t i = 0; i < plan.kept_count; ++i) {
        good = good && ::fcntl(plan.kept[i], F_SETFD, 0) == 0;
    }
    if (good) {
        if (plan.oom_score == OomScore::kPlain) writeZero(kOomScoreFile);
        resetSignals();
        (void)::syscall(SYS_execveat, plan.program_fd, "", plan.argv, plan.envp, AT_EMPTY_PATH);
    }
    *error = errno;
    ::_exit(127);
}

}  // namespace

SignalsBlocked::SignalsBlocked() {
    sigset_t all;
    (void)::sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &before_);
}

SignalsBlocked::~SignalsBlocked() {
    const int saved = errno;
    (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = saved;
}

std::vector<char*> execPointers(const std::vector<std::string>& strings) {
    std::vector<char*> out;
    out.reserve(strings.size() + 1);
    for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
    out.push_back(nullptr);
    return out;
}

void resetSignals() noexcept {
    struct sigaction plain {};
    plain.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; ++number) (void)::sigaction(number, &plain, nullptr);
    sigset_t none;
    (void)::sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool closeAtExecFrom(unsigned first) noexcept {
    return ::syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
}

void writeZero(const char* path) noexcept {
    const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    [[maybe_unused]] const ssize_t n = ::write(fd, "0", 1);
    (void)::close(fd);
}

void reportAndExit(int report_fd, int error) noexcept {
    // Smaller than PIPE_BUF: whole or not at all.
    [[maybe_unused]] const ssize_t n = ::write(report_fd, &error, sizeof error);
    ::_exit(127);
}

std::optional<int> reportedError(int report_fd) {
    int error = 0;
    ssize_t n = 0;
    do {
        n = ::read(report_fd, &error, sizeof error);
    } while (n < 0 && errno == EINTR);
    if (n == static_cast<ssize_t>(sizeof error)) return error;
    return std::nullopt;
}

Result<StartedProgram> startProgram(const ProgramPlan& plan) {
    volatile int error = 0;
    const SignalsBlocked blocked;
    const pid_t pid = ::vfork();
    if (pid == 0) programChild(plan, &error);
    if (pid < 0) return failErrno("fork");
    return StartedProgram{pid, error};
}

}  // namespace arca::base
