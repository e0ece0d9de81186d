// What is mounted in the agent's own mount namespace.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::vminitd {

// Mount points in the order in which they were mounted, from the text of /proc/self/mountinfo.
std::vector<std::string> parseMountPoints(std::string_view mountinfo);

// The first mount point of a file system of `type`; empty when there is none.
std::string findMountPoint(std::string_view mountinfo, std::string_view type);

// Of this process.
base::Result<std::vector<std::string>> mountPoints();
base::Result<std::string> mountPointOf(std::string_view type);

// Unmounts everything that is mounted on `path` (absolute, clean) or below it, the last first.
// Stops at the first that cannot be unmounted: EBUSY is that of a user that may go soon.
base::Result<> unmountAllBelow(const std::string& path);

}  // namespace arca::vminitd
