// The freezer as files of cgroups: `state` reads it without an agent, and SIGKILL thaws.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace arca::runtime {

// `cgroup_paths`: directories of one container, one for each hierarchy or the one of cgroup v2.
// False also when nothing of it exists any more.
bool isFrozen(const std::vector<std::string>& cgroup_paths);

// Thaws what is frozen; returns without waiting.
base::Result<> thaw(const std::vector<std::string>& cgroup_paths);

}  // namespace arca::runtime
