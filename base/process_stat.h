// /proc/PID/stat and /proc/PID/status. Source: proc(5).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace arca::base {

struct ProcessStat {
    std::string name;  // at most 15 bytes, of whatever the process likes
    char state = 0;    // 'Z': a zombie
    pid_t parent = 0;
    dev_t terminal = 0;             // 0: none
    uint64_t cpu_ticks = 0;         // used so far, in user and kernel mode
    uint64_t start_time_ticks = 0;  // since boot
};

// kNotFound when there is no such process (any more).
Result<ProcessStat> readProcessStat(pid_t pid);

// What is behind a name such as "Uid:" in the text of a status file; empty when it is not there.
std::string_view statusField(std::string_view status, std::string_view name);

}  // namespace arca::base
