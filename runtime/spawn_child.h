// The child's half of the two processes that the CLI starts itself: the body and the agent.
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

struct AgentPlan {
    const char* path;
    char* const* argv;
    char* const* envp;
    int null_fd;
    int log_fd;
    int fds[4];     // become 3, 4, 5, 6; each is 10 or higher
    int report_fd;  // close-on-exec pipe: takes the errno of a failure; 10 or higher
};

// CHILD SIDE of fork(2): leaves a grandchild that becomes the agent, and exits.
[[noreturn]] void agentChild(const AgentPlan& plan) noexcept;

}  // namespace arca::runtime
