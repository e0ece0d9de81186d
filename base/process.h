// Other processes: pidfds, start times, liveness, exit codes.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// A pid can be reused; a pid with its start time cannot.
struct ProcessIdentity {
    pid_t pid = 0;
    uint64_t start_time_ticks = 0;  // field 22 of /proc/PID/stat, clock ticks since boot
};

// Start time of a living or zombie process. Fails with kNotFound when there is none.
Result<uint64_t> processStartTime(pid_t pid);

// True while the process with this pid *and* start time runs; a zombie counts as ended.
bool isAlive(const ProcessIdentity& identity);

// True in a user namespace other than the initial one, whose map is the identity on all ids.
bool inUserNamespace();

// pidfd_open(2). kNotFound when the process is gone (ESRCH).
Result<UniqueFd> openPidfd(pid_t pid);

// A pidfd of exactly this process: opened, then the start time compared, so that a reused number is
// not hit.
Result<UniqueFd> openPidfd(const ProcessIdentity& identity);

// pidfd_send_signal(2). kNotFound with text "no such process" when it has ended.
Result<> sendSignal(int pidfd, int signal_number);

// Waits until the process behind `pidfd` has ended (it may stay a zombie). False = the time ran
// out.
Result<bool> waitExit(int pidfd, std::optional<std::chrono::milliseconds> timeout);

// Reaps a child and gives its exit code: the low 8 bits, or 128 + signal.
Result<int> reapChild(pid_t pid);

// The exit code of a process that is not our child, from PIDFD_GET_INFO (Linux 6.15); nullopt when
// the kernel does not tell (older kernel, or nobody has reaped it yet).
std::optional<int> exitCodeOf(int pidfd);

// Exit code as runtimes report it: status of exit(2) in the low 8 bits, or 128 + signal;
// `wait_status` as of wait(2).
int exitCodeFromWaitStatus(int wait_status);

}  // namespace arca::base
