// Removing a cgroup with all that still runs in it.
#pragma once

#include <chrono>
#include <functional>

#include "base/result.h"
#include "vminitd/cgroup.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

// Removes `cgroup`, killing what is in it, and tries that again for as long as `limit`. Then calls
// `done` from the loop, or at once when nothing is in the way: true when it is gone, false when it
// is still in use, or what the last attempt failed with. `cgroups` must outlive it.
void removeCgroup(EventLoop& loop, CgroupManager& cgroups, const CgroupDirs& cgroup,
                  std::chrono::milliseconds limit, std::function<void(base::Result<bool>)> done);

}  // namespace arca::vminitd
