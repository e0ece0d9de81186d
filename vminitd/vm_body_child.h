// The child's half of forking a body in a VM.
//
// No project headers here: this runs between vfork and exec.
#pragma once

namespace arca::vminitd {

// All that the child reads, built before the fork.
struct VmBodyPlan {
    int program_fd;  // what to execute
    int sync_fd;     // stays open for the program
    int stdio[3];    // become 0, 1, 2; each is 3 or higher
    char* const* argv;
    char* const* envp;
    // Where the child leaves the errno of a failure: the child of vfork(2) shares our memory.
    volatile int* error;
};

// CHILD SIDE of vfork(2). Every signal is blocked.
[[noreturn]] void vmBodyChild(const VmBodyPlan& plan) noexcept;

}  // namespace arca::vminitd
