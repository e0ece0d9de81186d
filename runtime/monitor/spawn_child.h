// The child's half of startHelper(). No project headers here: this runs between fork and exec.
#pragma once

#include <stddef.h>

namespace arca::runtime {

struct HelperPlan {
    const char* path;
    char* const* argv;
    char* const* envp;
    int null_fd;
    int output_fd;
    const int* fds;  // each 100 or higher; become 3, 4, ...
    size_t fd_count;
    bool without_network;
    int parent_pid;
    int report_fd;  // close-on-exec; 100 or higher; takes the errno of a failure
};

// CHILD SIDE of fork(2). Every signal is blocked.
[[noreturn]] void helperChild(const HelperPlan& plan) noexcept;

}  // namespace arca::runtime
