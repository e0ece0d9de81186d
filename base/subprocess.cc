#include "base/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/pipe.h"
#include "base/process.h"
#include "base/process_tree.h"
#include "base/unique_fd.h"

namespace arca::base {
namespace {

using Clock = std::chrono::steady_clock;

// All that the child reads, built before the fork: it may only make async-signal-safe calls.
struct ChildPlan {
    const char* path;
    char* const* argv;
    char* const* envp;
    const char* cwd;
    int stdin_fd, stdout_fd, stderr_fd, report_fd;
    int status_fd;             // of a guard: gets a GuardWord twice
    const char* cgroup_procs;  // null: stay
    bool plain_oom_score;
};

// What the child tells when it could not execute the program.
struct ChildFailure {
    enum Step : int { kStdio, kChdir, kExec, kFork } step;
    int error;  // errno
};

// What a guard tells: first the program's pid, then its status as of wait(2).
using GuardWord = int;

// CHILD SIDE
[[noreturn]] void childMain(const ChildPlan& plan) noexcept {
    (void)::setpgid(0, 0);
    if (plan.cgroup_procs != nullptr) writeZero(plan.cgroup_procs);
    if (plan.plain_oom_score) writeZero(kOomScoreFile);
    resetSignals();
    ChildFailure failure{ChildFailure::kStdio, 0};
    if (::dup2(plan.stdin_fd, 0) >= 0 && ::dup2(plan.stdout_fd, 1) >= 0 &&
        ::dup2(plan.stderr_fd, 2) >= 0) {
        failure.step = ChildFailure::kChdir;
        if (plan.cwd == nullptr || ::chdir(plan.cwd) == 0) {
            failure.step = ChildFailure::kExec;
            (void)closeAtExecFrom(3);
            (void)::execve(plan.path, plan.argv, plan.envp);
        }
    }
    failure.error = errno;
    // Smaller than PIPE_BUF: whole or not at all.
    [[maybe_unused]] const ssize_t n = ::write(plan.report_fd, &failure, sizeof failure);
    ::_exit(127);
}

// CHILD SIDE. All descriptors from 3 up but those of `plan`: what the parent has open, its locks
// among it, must not stay open with a guard.
void closeOthers(const ChildPlan& plan) noexcept {
    int kept[] = {plan.stdin_fd, plan.stdout_fd, plan.stderr_fd, plan.report_fd, plan.status_fd};
    std::sort(std::begin(kept), std::end(kept));
    unsigned first = 3;
    for (const int fd : kept) {
        const auto number = static_cast<unsigned>(fd);
        if (number > first) (void)::syscall(SYS_close_range, first, number - 1, 0);
        first = number + 1;
    }
    (void)::syscall(SYS_close_range, first, ~0U, 0);
}

// CHILD SIDE
[[noreturn]] void guardFailed(const ChildPlan& plan, ChildFailure::Step step) noexcept {
    const ChildFailure failure{step, errno};
    [[maybe_unused]] const ssize_t n = ::write(plan.report_fd, &failure, sizeof failure);
    ::_exit(127);
}

// CHILD SIDE. The process between the parent and a program with a time limit: whatever the program
// starts stays below it, also what has left the group and the session, and what its parent has
// left. Ends with the program; what is still there then is left to live.
[[noreturn]] void guardMain(const ChildPlan& plan) noexcept {
    (void)::setpgid(0, 0);
    if (plan.cgroup_procs != nullptr) writeZero(plan.cgroup_procs);
    (void)::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    // All signals stay blocked; an ignored SIGCHLD would take the status.
    (void)::signal(SIGCHLD, SIG_DFL);
    // Before anything is closed: the folder may be named by a descriptor.
    if (plan.cwd != nullptr && ::chdir(plan.cwd) != 0) guardFailed(plan, ChildFailure::kChdir);
    closeOthers(plan);
    ChildPlan program_plan = plan;
    program_plan.cwd = nullptr;
    const pid_t program = ::_Fork();
    if (program == 0) childMain(program_plan);
    if (program < 0) guardFailed(plan, ChildFailure::kFork);
    for (const int fd : {plan.stdin_fd, plan.stdout_fd, plan.stderr_fd, plan.report_fd}) {
        (void)::close(fd);
    }
    for (const int fd : {0, 1, 2}) (void)::close(fd);
    [[maybe_unused]] ssize_t n = ::write(plan.status_fd, &program, sizeof program);
    int status = 0;
    pid_t ended = 0;
    do {
        ended = ::waitpid(-1, &status, __WALL);
    } while (ended != program && (ended > 0 || errno == EINTR));
    const GuardWord word = status;
    n = ::write(plan.status_fd, &word, sizeof word);
    while (::waitpid(-1, &status, __WALL | WNOHANG) > 0) {
    }
    ::_exit(0);
}

void appendLimited(std::string& out, std::string_view data, size_t limit) {
    out.append(data.substr(0, limit - std::min(limit, out.size())));
}

// Reads what is there, but no more than a pipe can hold, so that a program that never stops writing
// cannot keep us from looking at the clock; false at end of file.
bool drain(int fd, std::string& out, size_t limit) {
    constexpr size_t kMostReads = 256;  // 1 MiB
    std::array<char, 4096> buffer{};
    for (size_t i = 0; i < kMostReads; ++i) {
        const ssize_t n = ::read(fd, buffer.data(), buffer.size());
        if (n > 0) {
            appendLimited(out, {buffer.data(), static_cast<size_t>(n)}, limit);
            continue;
        }
        if (n == 0) return false;
        if (errno == EINTR) continue;
        return errno == EAGAIN;
    }
    return true;
}

// While it lives, a write to a closed pipe is an error and no signal. A library function must not
// change the program's dispositions, so the signal is blocked and taken back. That holds too where
// the caller has it blocked: one that reads its signals from a descriptor would take it for its
// own.
class NoSigpipe {
 public:
    NoSigpipe() {
        (void)::sigemptyset(&pipe_only_);
        (void)::sigaddset(&pipe_only_, SIGPIPE);
        (void)::pthread_sigmask(SIG_BLOCK, &pipe_only_, &before_);
        sigset_t pending;
        (void)::sigpending(&pending);
        was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    }
    NoSigpipe(const NoSigpipe&) = delete;
    NoSigpipe& operator=(const NoSigpipe&) = delete;
    ~NoSigpipe() {
        const timespec no_wait{};
        while (!was_pending_ && ::sigtimedwait(&pipe_only_, nullptr, &no_wait) > 0) {
        }
        (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }

 private:
    sigset_t pipe_only_{};
    sigset_t before_{};
    bool was_pending_ = false;
};

struct Streams {
    UniqueFd input, out, err;
    std::string_view pending_input;
};

void feed(Streams& streams) {
    while (!streams.pending_input.empty()) {
        const ssize_t n = ::write(streams.input.get(), streams.pending_input.data(),
                                  streams.pending_input.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) break;  // EPIPE: it does not want to read; that is its right
        streams.pending_input.remove_prefix(static_cast<size_t>(n));
    }
    streams.pending_input = {};
    streams.input.reset();
}

// Pumps the streams until the program ends. False when `deadline` passed first.
Result<bool> pump(Streams& streams, int pidfd, Clock::time_point deadline, size_t limit,
                  Outcome& outcome) {
    while (true) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) return false;
        const int wait_ms = static_cast<int>(std::min<int64_t>(left, 1000 * 3600));
        std::array<pollfd, 4> entries{
            pollfd{pidfd, POLLIN, 0}, pollfd{streams.input.get(), POLLOUT, 0},
            pollfd{streams.out.get(), POLLIN, 0}, pollfd{streams.err.get(), POLLIN, 0}};
        const int n = ::poll(entries.data(), entries.size(), wait_ms);
        if (n < 0 && errno != EINTR) return failErrno("poll");
        if (n <= 0) continue;
        if (entries[1].revents != 0) feed(streams);
        if (entries[2].revents != 0 && !drain(streams.out.get(), outcome.out, limit))
            streams.out.reset();
        if (entries[3].revents != 0 && !drain(streams.err.get(), outcome.err, limit))
            streams.err.reset();
        if (entries[0].revents != 0) {
            if (streams.out.valid()) (void)drain(streams.out.get(), outcome.out, limit);
            if (streams.err.valid()) (void)drain(streams.err.get(), outcome.err, limit);
            return true;
        }
    }
}

// Kills what is below the guard `pid`, then lets that end.
void killGuarded(pid_t pid, pid_t program) {
    constexpr std::chrono::seconds kLimit{5};
    // Standing still it does not leave when the program does, and keeps what is orphaned.
    (void)::kill(pid, SIGSTOP);
    const auto killed = killDescendants(pid, kLimit);
    // Without a /proc the program's group is all that is known.
    if (!killed && program > 0) (void)::kill(-program, SIGKILL);
    (void)::kill(pid, killed ? SIGCONT : SIGKILL);
}

// One word of a guard; nullopt when it has ended without it. Waits: it comes at once, or the guard
// is at its end.
std::optional<GuardWord> readWord(int fd) {
    GuardWord word = 0;
    ssize_t n = 0;
    do {
        n = ::read(fd, &word, sizeof word);
    } while (n < 0 && errno == EINTR);
    if (n != sizeof word) return std::nullopt;
    return word;
}

Result<int> waitStatus(pid_t pid, const std::string& path) {
    int status = 0;
    while (::waitpid(pid, &status, 0) != pid) {
        if (errno != EINTR) return failErrno("wait for " + path);
    }
    return status;
}

}  // namespace

Result<Outcome> runCommand(const Command& command) {
    ARCA_TRY(Pipe input, makePipe());
    ARCA_TRY(Pipe out, makePipe());
    ARCA_TRY(Pipe err, makePipe());
    ARCA_TRY(Pipe report, makePipe());
    const bool guarded = command.timeout.has_value();
    Pipe guard;
    if (guarded) {
        ARCA_TRY(guard, makePipe());
    }
    const std::vector<std::string> args =
        command.args.empty() ? std::vector{command.path} : command.args;
    const std::vector<char*> argv = execPointers(args);
    const std::vector<char*> envp = execPointers(command.env);
    const ChildPlan plan{command.path.c_str(),
                         argv.data(),
                         envp.data(),
                         command.cwd.empty() ? nullptr : command.cwd.c_str(),
                         input.read_end.get(),
                         out.write_end.get(),
                         err.write_end.get(),
                         report.write_end.get(),
                         guard.write_end.get(),
                         command.cgroup_procs.empty() ? nullptr : command.cgroup_procs.c_str(),
                         command.plain_oom_score};
    pid_t pid = 0;
    {
        const SignalsBlocked blocked;
        pid = ::fork();
        if (pid == 0 && guarded) guardMain(plan);
        if (pid == 0) childMain(plan);
    }
    if (pid < 0) return failErrno("fork for " + command.path);
    (void)::setpgid(pid, pid);  // both sides do it: whoever comes first
    input.read_end.reset();
    out.write_end.reset();
    err.write_end.reset();
    report.write_end.reset();
    guard.write_end.reset();

    ChildFailure failure{};
    ssize_t n = 0;
    do {
        n = ::read(report.read_end.get(), &failure, sizeof failure);
    } while (n < 0 && errno == EINTR);
    if (n == sizeof failure) {
        (void)reapChild(pid);
        std::string what = "exec " + command.path;
        if (failure.step == ChildFailure::kStdio) what += ": set stdio up";
        if (failure.step == ChildFailure::kChdir) what += ": chdir to " + command.cwd;
        if (failure.step == ChildFailure::kFork) what = "fork for " + command.path;
        return failErrno(what, failure.error);
    }

    const auto program = guarded ? readWord(guard.read_end.get()) : std::nullopt;
    Outcome outcome;
    Streams streams{std::move(input.write_end), std::move(out.read_end), std::move(err.read_end),
                    command.input};
    for (const UniqueFd* fd : {&streams.input, &streams.out, &streams.err}) {
        if (::fcntl(fd->get(), F_SETFL, O_NONBLOCK) != 0) return failErrno("set O_NONBLOCK");
    }
    const NoSigpipe no_sigpipe;
    feed(streams);
    const auto deadline = command.timeout ? Clock::now() + *command.timeout
                                          : Clock::now() + std::chrono::hours(24 * 365);
    auto pidfd = openPidfd(pid);
    Result<bool> ended =
        pidfd ? pump(streams, pidfd->get(), deadline, command.output_limit_bytes, outcome)
              : Result<bool>(fail(pidfd.error()));
    const bool in_time = ended && *ended;
    if (!in_time && guarded) killGuarded(pid, program.value_or(0));
    if (!in_time && !guarded) (void)::kill(-pid, SIGKILL);
    ARCA_TRY(int status, waitStatus(pid, command.path));
    if (!ended) return fail(std::move(ended).error());
    if (!in_time) {
        const double seconds = static_cast<double>(command.timeout->count()) / 1000.0;
        std::string text = std::to_string(seconds);
        text.resize(text.find('.') + 2);
        return fail(Code::kDeadlineExceeded,
                    command.path + " ran past specified timeout of " + text + "s");
    }
    if (guarded) {
        const auto told = readWord(guard.read_end.get());
        if (!told) return fail(Code::kInternal, command.path + ": its end was not told");
        status = *told;
    }
    outcome.exit_code = exitCodeFromWaitStatus(status);
    outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return outcome;
}

}  // namespace arca::base
