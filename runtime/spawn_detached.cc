#include "runtime/spawn_detached.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/process.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr int kFirstHighFd = 10;  // clear of the program's own
constexpr size_t kMostFds = 4;

struct DetachedPlan {
    const char* path;
    char* const* argv;
    char* const* envp;
    int null_fd;
    int log_fd;
    int fds[kMostFds];  // become 3, 4, ...
    int fd_count;
    int report_fd;  // close-on-exec pipe
};                  // every descriptor is kFirstHighFd or higher

// CHILD SIDE of fork(2): leaves a grandchild that becomes the program, and exits.
[[noreturn]] void detachedChild(const DetachedPlan& plan) noexcept {
    // A new session before the second fork: the grandchild is no leader, so that it can never get
    // a controlling terminal, and it is nobody's child but init's (or the subreaper's).
    (void)::setsid();
    const pid_t pid = ::fork();
    if (pid > 0) ::_exit(0);
    bool good = pid == 0;
    good = good && ::dup2(plan.null_fd, 0) >= 0 && ::dup2(plan.null_fd, 1) >= 0 &&
           ::dup2(plan.log_fd, 2) >= 0;
    for (int i = 0; i < plan.fd_count; ++i) good = good && ::dup2(plan.fds[i], 3 + i) >= 0;
    good = good && base::closeAtExecFrom(3U + static_cast<unsigned>(plan.fd_count)) &&
           ::chdir("/") == 0;
    if (good) {
        // A caller's score (containerd's is near -1000) is not for what outlives it.
        base::writeZero(base::kOomScoreFile);
        (void)::umask(022);
        base::resetSignals();
        (void)::execve(plan.path, plan.argv, plan.envp);
    }
    base::reportAndExit(plan.report_fd, errno);
}

Result<UniqueFd> moveHigh(UniqueFd fd) {
    UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstHighFd));
    if (!moved.valid()) return failErrno("move a descriptor");
    return moved;
}

}  // namespace

Result<> startDetached(DetachedProgram program) {
    const std::vector<char*> argv = base::execPointers(program.args);
    std::string path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char* const envp[] = {path_variable.data(), nullptr};
    ARCA_TRY(UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return failErrno("make a pipe");
    const UniqueFd report(ends[0]);
    ARCA_TRY(UniqueFd report_write, moveHigh(UniqueFd(ends[1])));
    DetachedPlan plan{program.path.c_str(), argv.data(), envp, -1, -1, {-1, -1, -1, -1}, 0,
                      report_write.get()};
    if (program.fds.size() > kMostFds) {
        return fail(Code::kInternal, "too many descriptors for " + program.path);
    }
    ARCA_TRY(null, moveHigh(std::move(null)));
    ARCA_TRY(program.log, moveHigh(std::move(program.log)));
    plan.null_fd = null.get();
    plan.log_fd = program.log.get();
    for (UniqueFd& fd : program.fds) {
        ARCA_TRY(fd, moveHigh(std::move(fd)));
        plan.fds[plan.fd_count++] = fd.get();
    }
    pid_t pid = 0;
    {
        const base::SignalsBlocked blocked;
        pid = ::fork();
        if (pid == 0) detachedChild(plan);
    }
    if (pid < 0) return failErrno("fork");
    report_write.reset();
    ARCA_CHECK(base::reapChild(pid));
    if (const auto error = base::reportedError(report.get())) {
        return failErrno("start " + program.path, *error);
    }
    return {};
}

}  // namespace arca::runtime
