// From fork to exec: the child's half, and what every parent does around it.
//
// What is marked CHILD SIDE makes async-signal-safe calls only, allocates nothing and touches no
// object of the parent's but the plan that it is given: other threads may have held any lock.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace arca::base {

// All signals of this thread, blocked while it lives: around a fork, so that no handler of the
// parent's runs in the child, and around the start of threads that take no part in signals.
class SignalsBlocked {
 public:
    SignalsBlocked();
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked();  // keeps errno

 private:
    sigset_t before_{};
};

// `strings` as execve(2) takes them: pointers into them, and a null at the end.
std::vector<char*> execPointers(const std::vector<std::string>& strings);

// CHILD SIDE. Default dispositions for all signals, then an empty mask: what the parent ignores or
// blocks would survive exec.
void resetSignals() noexcept;

// CHILD SIDE. Every descriptor from `first` up is closed at exec. False when the kernel is older
// than 5.11 or `first` is wrong; errno says which. Source: close_range(2), CLOSE_RANGE_CLOEXEC.
bool closeAtExecFrom(unsigned first) noexcept;

// CHILD SIDE. Writes "0" to a file of /proc or of a cgroup, best effort: "me" to cgroup.procs, and
// to kOomScoreFile the end of a parent's protection from (or preference of) the OOM killer.
void writeZero(const char* path) noexcept;
inline constexpr char kOomScoreFile[] = "/proc/self/oom_score_adj";

// CHILD SIDE of fork(2). Tells the parent an errno over a close-on-exec pipe and exits with 127.
[[noreturn]] void reportAndExit(int report_fd, int error) noexcept;

// The parent's half: waits until the child has told something or executed its program. The errno,
// or nullopt when the program runs. The parent's copy of the write end must be closed.
std::optional<int> reportedError(int report_fd);

enum class OomScore { kInherit, kPlain };

// What startProgram() executes, and with what.
struct ProgramPlan {
    int program_fd;             // for execveat(2)
    int stdio[3];               // become 0, 1, 2; -1: that one stays
    unsigned first_closed;      // descriptors from here up are closed at exec,
    const int* kept = nullptr;  // but for these, each 3 or higher
    size_t kept_count = 0;
    char* const* argv;
    char* const* envp;
    OomScore oom_score = OomScore::kInherit;
    const char* path = nullptr;    // for execve(2), instead of program_fd: scripts need a name
    int third = -1;                // becomes 3, and is kept
    int network_namespace = -1;    // joined with setns(2)
    const int* cgroups = nullptr;  // cgroup.procs files of where it is to be, open for writing
    size_t cgroup_count = 0;
    bool new_session = false;
};

struct StartedProgram {
    pid_t pid = 0;
    int error = 0;              // of exec or of what comes before: the child has exited with 127
    const char* step = "exec";  // at which that was
};

// Starts it by vfork(2): only this thread waits, until exec, and no page table is copied. Every
// descriptor of `plan` is borrowed. Fails only when no child could be made; one that could not be
// executed is the caller's to reap, like any other.
Result<StartedProgram> startProgram(const ProgramPlan& plan);

}  // namespace arca::base
