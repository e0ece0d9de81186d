// Starts the programs that a sandbox consists of, so that none outlives the monitor.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

struct HelperProgram {
    std::string path;
    std::vector<std::string> args;  // argv, args[0] included
    // Become descriptors 3, 4, ... of the program; borrowed.
    std::vector<int> fds;
    int output = -1;  // its stdout and stderr; borrowed
    // In a network namespace of its own, without any device.
    bool without_network = false;
};

struct Helper {
    pid_t pid = 0;
    base::UniqueFd pidfd;
};

// Starts it: stdin /dev/null, an empty environment but PATH, every other descriptor closed, killed
// when the calling thread ends. Fails with the errno of exec.
base::Result<Helper> startHelper(const HelperProgram& program);

}  // namespace arca::runtime
