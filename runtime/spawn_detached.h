// Starts a program that outlives this one: the local sandbox's agent, the monitor of a sandbox.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

struct DetachedProgram {
    std::string path;
    std::vector<std::string> args;    // argv, args[0] included
    std::vector<base::UniqueFd> fds;  // become 3, 4, ...; at most four
    base::UniqueFd log;               // becomes its stderr
};

// Starts it as nobody's child, in a session of its own, with nothing but PATH in its environment
// and stdin and stdout on /dev/null. Fails with the errno of exec.
base::Result<> startDetached(DetachedProgram program);

}  // namespace arca::runtime
