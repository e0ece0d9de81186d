#include "runtime/monitor/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "base/process.h"
#include "runtime/monitor/spawn_child.h"

namespace arca::runtime {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr int kHigh = 100;  // clear of what the program gets

Result<UniqueFd> highCopy(int fd) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, kHigh));
    if (!copy.valid()) return failErrno("duplicate a descriptor");
    return copy;
}

}  // namespace

Result<Helper> startHelper(const HelperProgram& program) {
    std::vector<std::string> words = program.args;
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
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
    sigset_t all;
    sigset_t before;
    (void)::sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
    const pid_t pid = ::fork();
    if (pid == 0) helperChild(plan);
    const int fork_errno = errno;
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) return failErrno("fork", fork_errno);
    report_write.reset();
    int error = 0;
    ssize_t n = 0;
    do {
        n = ::read(report.get(), &error, sizeof error);
    } while (n < 0 && errno == EINTR);
    if (n == static_cast<ssize_t>(sizeof error)) {
        (void)base::reapChild(pid);
        return failErrno("start " + program.path, error);
    }
    Helper helper;
    helper.pid = pid;
    ARCA_TRY(helper.pidfd, base::openPidfd(pid));
    return helper;
}

}  // namespace arca::runtime
