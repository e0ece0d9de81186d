// Mount points inside a rootfs, found or made once and then used by descriptor.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vmexec {

struct MountTarget {
    base::UniqueFd fd;  // O_PATH
    std::string path;   // cleaned, absolute inside the root; symlinks resolved
    bool existed = false;
};

enum class TargetKind { kDirectory, kFile };

// Opens `destination` below `root_fd`; when missing it is made, as a directory (0755) or an empty
// file (0644) with the directories above it. Symlinks are followed inside the root. A relative
// destination counts from the root. Fails on the root itself.
base::Result<MountTarget> openMountTarget(int root_fd, const std::string& destination,
                                          TargetKind kind);

// Refuses what would let a container fake /proc to whoever trusts it: another file system than
// procfs on /proc, and mounts below /proc but for the few files that containers are known to
// replace. `type` is the mount's; `source_fd` a bind's source, else -1.
// Source: runc's checkProcMount().
base::Result<> checkProcTarget(const MountTarget& target, const std::string& type, int source_fd);

}  // namespace arca::vmexec
