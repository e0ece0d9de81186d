// Runs a program to its end: input on stdin, output captured, a time limit that takes its children
// too. Used for hooks on both sides. Safe in a process with threads.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace arca::base {

struct Command {
    std::string path;               // executed as is, no PATH search
    std::vector<std::string> args;  // argv, args[0] included; empty: {path}
    std::vector<std::string> env;   // exactly this environment
    std::string cwd;                // empty: the caller's
    std::string input;              // given on stdin, then end of file
    std::optional<std::chrono::milliseconds> timeout;
    size_t output_limit_bytes = 65536;  // what is kept of each stream; the rest is read and dropped
    // cgroup.procs of the cgroup that it is to be in; empty: the caller's. Best effort.
    std::string cgroup_procs{};
    // The caller's protection from the OOM killer is not for it. Best effort.
    bool plain_oom_score = false;
};

struct Outcome {
    int exit_code = 0;  // low 8 bits, or 128 + signal
    int signal = 0;     // the signal that ended it, or 0
    std::string out;
    std::string err;
};

// Runs `command` and waits. A program that does not read its stdin is no error (EPIPE is ignored).
// The program gets its own process group. When `timeout` passes, it is killed with SIGKILL and with
// all that it has started, whichever group, session or parent that has by now; the error is
// kDeadlineExceeded. (For that a process stands between us and one with a time limit.) Output that
// grandchildren still hold open after the program's exit is not waited for. Fails with the errno of
// exec when the program cannot be started.
Result<Outcome> runCommand(const Command& command);

}  // namespace arca::base
