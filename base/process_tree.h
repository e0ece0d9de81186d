// What a child has started, however it has spread: found by /proc, for want of a cgroup.
#pragma once

#include <sys/types.h>

#include <chrono>

#include "base/result.h"

namespace arca::base {

// Sends SIGKILL to every descendant of our child `root`, which itself is left alone, and again to
// those that are born meanwhile, until none runs any more. `root` must be a subreaper
// (PR_SET_CHILD_SUBREAPER), so that none gets out of the tree, and must not end while this runs.
//
// Works in a new pid namespace with the /proc of an outer one too, and does not believe a /proc
// that is none. kUnavailable when there is no /proc to look at, kDeadlineExceeded when some are
// still there after `limit`.
Result<> killDescendants(pid_t root, std::chrono::milliseconds limit);

}  // namespace arca::base
