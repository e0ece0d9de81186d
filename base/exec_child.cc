#include "base/exec_child.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace arca::base {
namespace {

// What a child was at when something went wrong.
enum Step : int { kExec, kCgroup, kNetwork };

// CHILD SIDE. Where it is to run: while the descriptors still have their numbers.
bool moveProgram(const ProgramPlan& plan, volatile int* step) noexcept {
    if (plan.new_session) (void)::setsid();
    *step = kCgroup;
    for (size_t i = 0; i < plan.cgroup_count; ++i) {
        if (::write(plan.cgroups[i], "0", 1) != 1) return false;
    }
    *step = kNetwork;
    return plan.network_namespace < 0 || ::setns(plan.network_namespace, CLONE_NEWNET) == 0;
}

// CHILD SIDE
bool placeDescriptors(const ProgramPlan& plan) noexcept {
    for (int fd = 0; fd < 3; ++fd) {
        if (plan.stdio[fd] >= 0 && ::dup2(plan.stdio[fd], fd) < 0) return false;
    }
    if (plan.third >= 0 && ::dup2(plan.third, 3) < 0) return false;
    // Set on all first and taken off some: nothing that anybody leaked is forgotten.
    if (!closeAtExecFrom(plan.first_closed)) return false;
    if (plan.third >= 0 && ::fcntl(3, F_SETFD, 0) != 0) return false;
    for (size_t i = 0; i < plan.kept_count; ++i) {
        if (::fcntl(plan.kept[i], F_SETFD, 0) != 0) return false;
    }
    return true;
}

// CHILD SIDE of vfork(2), which shares our memory: `error` and `step` are where the parent finds
// them. Plain volatile objects: members of a struct were taken for dead by g++ 12.
[[noreturn]] void programChild(const ProgramPlan& plan, volatile int* error,
                               volatile int* step) noexcept {
    if (moveProgram(plan, step)) {
        *step = kExec;
        if (placeDescriptors(plan)) {
            if (plan.oom_score == OomScore::kPlain) writeZero(kOomScoreFile);
            resetSignals();
            if (plan.path != nullptr) {
                (void)::execve(plan.path, plan.argv, plan.envp);
            } else {
                (void)::syscall(SYS_execveat, plan.program_fd, "", plan.argv, plan.envp,
                                AT_EMPTY_PATH);
            }
        }
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
    static constexpr const char* kSteps[] = {"exec", "join its cgroup",
                                             "join the network namespace"};
    volatile int error = 0;
    volatile int step = kExec;
    const SignalsBlocked blocked;
    const pid_t pid = ::vfork();
    if (pid == 0) programChild(plan, &error, &step);
    if (pid < 0) return failErrno("fork");
    return StartedProgram{pid, error, kSteps[step]};
}

}  // namespace arca::base
