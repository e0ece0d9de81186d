// The container's root directory: made a mount of its own, then entered.
//
// In a mount namespace that was made for the container its root is changed with pivot_root (or, on
// request, MS_MOVE and chroot). A mount namespace that is shared with others (none asked for, or
// one joined by path) is not ours to change: there the rootfs stays a detached mount that only the
// container's processes have as root, so nothing is left in anybody's mount table. (Before
// Linux 6.15 nothing can be mounted in a detached tree; there it is attached, in the shared mount
// table, as other runtimes do.)
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/plan.h"

namespace arca::vmexec {

// Sets the propagation of the new mount namespace and makes the rootfs a mount. `prepared`: the
// tree that stage 1 opened, or -1. Gives its descriptor, by which all inside is reached.
base::Result<base::UniqueFd> prepareRoot(const spec::Plan& plan, base::UniqueFd prepared);

// Makes the root's own mount read-only, keeping its other flags; what is mounted below it stays.
base::Result<> makeRootReadOnly(int root_fd);

// Makes `root_fd` the root and working directory of this process, gets rid of the old root and
// applies linux.rootfsPropagation.
base::Result<> enterRoot(const spec::Plan& plan, int root_fd);

}  // namespace arca::vmexec
