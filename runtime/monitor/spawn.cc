#include "runtime/monitor/spawn.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/process.h"

namespace arca::runtime {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr int kHigh = 100;  // clear of what the program gets

struct HelperPlan {
    const char* path;
    char* const* argv;
    char* const* envp;
    int null_fd;
    int output_fd;
    const int* fds;  // become 3, 4, ...
    size_t fd_count;
    bool without_network;
    pid_t parent_pid;
    int report_fd;  // close-on-exec pipe
};                  // every descriptor is kHigh or higher

// CHILD SIDE of fork(2).
[[noreturn]] void helperChild(const HelperPlan& plan) noexcept {
    const auto die = [&] { base::reportAndExit(plan.report_fd, errno); };
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
    if (!base::closeAtExecFrom(static_cast<unsigned>(next))) die();
    base::resetSignals();
    (void)::execve(plan.path, plan.argv, plan.envp);
    die();
    __builtin_unreachable();
}

Result<UniqueFd> highCopy(int fd) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, kHigh));
    if (!copy.valid()) return failErrno("duplicate a descriptor");
    return copy;
}

}  // namespace

Result<Helper> startHelper(const HelperProgram& program) {
    const std::vector<char*> argv = base::execPointers(program.args);
    std::string path_variable = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char* const envp[] = {path_variable.data(), nullptr};
    std::vector<UniqueFd> copies;
    std::vector<int> numbers;
    for (const int fd : program.fds) {
        ARCA_TRY(UniqueFd copy, highCopy(fd));
        numbers.push_back(copy.get());
        copies.push_back(std::move(copy));
    }
    ARCA_TRY(const UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    ARCA_TRY(const UniqueFd null_copy, highCopy(null.get()));
    ARCA_TRY(const UniqueFd output, highCopy(program.output >= 0 ? program.output : null.get()));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return failErrno("make a pipe");
    const UniqueFd report(ends[0]);
    UniqueFd report_write(ends[1]);
    ARCA_TRY(report_write, highCopy(report_write.get()));
    const HelperPlan plan{
        program.path.c_str(), argv.data(),       envp,           null_copy.get(),
        output.get(),         numbers.data(),    numbers.size(), program.without_network,
        ::getpid(),           report_write.get()};
    pid_t pid = 0;
    {
        const base::SignalsBlocked blocked;
        pid = ::fork();
        if (pid == 0) helperChild(plan);
    }
    if (pid < 0) return failErrno("fork");
    report_write.reset();
    if (const auto error = base::reportedError(report.get())) {
        (void)base::reapChild(pid);
        return failErrno("start " + program.path, *error);
    }
    Helper helper;
    helper.pid = pid;
    ARCA_TRY(helper.pidfd, base::openPidfd(pid));
    return helper;
}

}  // namespace arca::runtime
