// The child's half of the processes that the CLI starts itself: body, stand-in, agent, monitor.
//
// No project headers here: this runs between fork and exec.
#pragma once

namespace arca::runtime {

// All that the body's child reads, built before the fork.
struct BodyPlan {
    int program_fd;         // what to execute
    int sync_fd;            // stays open for the program
    int null_fd;            // becomes descriptors 0 to 2; -1: they stay
    unsigned first_closed;  // every descriptor from here up but sync_fd is closed at exec
    char* const* argv;
    char* const* envp;
    // Where the child leaves the errno of a failure. The child of vfork(2) shares our memory.
    volatile int* error;
};

// CHILD SIDE of vfork(2). Every signal is blocked.
[[noreturn]] void bodyChild(const BodyPlan& plan) noexcept;

// The same for a stand-in.
struct StandInPlan {
    int program_fd;
    int stdio_fd;     // becomes descriptors 0 to 2
    const int* kept;  // stay open for the program; each is 3 or higher
    unsigned long kept_count;
    char* const* argv;
    char* const* envp;
    volatile int* error;
};

// CHILD SIDE of vfork(2). Every signal is blocked.
[[noreturn]] void standInChild(const StandInPlan& plan) noexcept;

struct AgentPlan {
    const char* path;
    char* const* argv;
    char* const* envp;
    int null_fd;
    int log_fd;
    int fds[4];     // become 3, 4, ...; each is 10 or higher
    int fd_count;   // how many of them there are
    int report_fd;  // close-on-exec pipe: takes the errno of a failure; 10 or higher
};

// CHILD SIDE of fork(2): leaves a grandchild that becomes the agent (or the monitor), and exits.
[[noreturn]] void agentChild(const AgentPlan& plan) noexcept;

}  // namespace arca::runtime
