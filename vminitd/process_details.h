// What ps(1) tells of a process, read from /proc. Source: proc(5).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace arca::vminitd {

struct ProcessDetails {
    pid_t pid = 0;
    pid_t parent = 0;
    uid_t uid = 0;         // effective
    std::string terminal;  // such as "pts/0"; empty: none
    int64_t started = 0;   // seconds since the epoch
    uint64_t cpu_ms = 0;   // used so far, in user and kernel mode
    std::string command;   // at most kCommandBytes
};

constexpr size_t kCommandBytes = 4096;

// nullopt when there is no such process (any more).
std::optional<ProcessDetails> processDetails(pid_t pid);

}  // namespace arca::vminitd
