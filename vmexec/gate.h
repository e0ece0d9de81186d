// Where a created process waits for `start`: a listening socket, so that no agent has to be there
// meanwhile.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "spec/spec.h"
#include "spec/state.h"

namespace arca::vmexec {

// All that the waiting process still needs: little memory is held by many containers.
struct GateInput {
    base::UniqueFd listener;
    base::UniqueFd signals;
    std::string program;  // path to execute; empty: the configuration has no process
    std::vector<std::string> args;
    std::vector<std::string> env;
    bool terminal = false;
    int preserve_fds = 0;
    std::string seccomp_program;
    uint32_t seccomp_flags = 0;
    bool seccomp_notify = false;
    std::vector<spec::Hook> start_hooks;
    spec::State state;  // for the hooks
    std::string cwd;    // for the hooks
};

// Waits for kStart, runs the startContainer hooks and executes the program. A failure is reported
// on the connection that kStart came over.
[[noreturn]] void waitAndExecute(GateInput input);

}  // namespace arca::vmexec
