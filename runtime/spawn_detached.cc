#include "runtime/spawn_detached.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "base/process.h"
#include "runtime/spawn_child.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr int kFirstHighFd = 10;  // clear of the program's own

Result<UniqueFd> moveHigh(UniqueFd fd) {
    UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kFirstHighFd));
    if (!moved.valid()) return failErrno("move a descriptor");
    return moved;
}

}  // namespace

Result<> startDetached(DetachedProgram program) {
    std::vector<char*> argv;
    for (std::string& word : program.args) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::string path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char* const envp[] = {path_variable.data(), nullptr};
    ARCA_TRY(UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return failErrno("make a pipe");
    const UniqueFd report(ends[0]);
    ARCA_TRY(UniqueFd report_write, moveHigh(UniqueFd(ends[1])));
    AgentPlan plan{program.path.c_str(), argv.data(), envp, -1, -1, {-1, -1, -1, -1}, 0,
                   report_write.get()};
    if (program.fds.size() > std::size(plan.fds)) {
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
    sigset_t all;
    sigset_t before;
    (void)::sigfillset(&all);
    (void)::sigprocmask(SIG_SETMASK, &all, &before);
    const pid_t pid = ::fork();
    if (pid == 0) agentChild(plan);
    const int fork_errno = errno;
    (void)::sigprocmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) return failErrno("fork", fork_errno);
    report_write.reset();
    ARCA_CHECK(base::reapChild(pid));
    int error = 0;
    ssize_t n = 0;
    do {
        n = ::read(report.get(), &error, sizeof error);
    } while (n < 0 && errno == EINTR);
    if (n == sizeof error) return failErrno("start " + program.path, error);
    return {};
}

}  // namespace arca::runtime
