// linux.maskedPaths and linux.readonlyPaths. Init's side, before pivot_root.
//
// Source: runtime-spec config-linux.md, "Masked Paths", "Readonly Paths".
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace arca::vmexec {

// Makes each path that exists inside `root_fd` unreadable: a directory by an empty read-only tmpfs,
// anything else by the runtime's own, checked /dev/null (never the container's: CVE-2025-31133).
base::Result<> maskPaths(int root_fd, const std::vector<std::string>& paths);

// Makes each path that exists read-only, keeping the other flags that its mount has.
base::Result<> makePathsReadOnly(int root_fd, const std::vector<std::string>& paths);

}  // namespace arca::vmexec
