// What stage 1 opens for the init while it still has the caller's privileges: the rootfs and bind
// sources of a container with a user namespace (whose root may not be able to reach them), and all
// idmapped binds. A caller without that privilege opens nothing here; the init, which has it in its
// own mount namespace and is the same user outside, opens all but the idmapped ones itself.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/plan.h"
#include "vmexec/namespaces.h"

namespace arca::vmexec {

struct MountSources {
    base::UniqueFd rootfs;               // detached tree, or -1: the init opens it
    std::vector<base::UniqueFd> mounts;  // by index in spec.mounts; detached trees, or -1
};

// Source of a bind as an absolute path: relative ones count from the bundle.
std::string bindSource(const spec::Plan& plan, const spec::Mount& mount);

base::Result<MountSources> openMountSources(const spec::Plan& plan,
                                            const NamespacePlan& namespaces);

}  // namespace arca::vmexec
