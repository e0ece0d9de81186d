// A mount of type "cgroup": what the container sees of its cgroups.
//
// On v1 and hybrid hosts a tmpfs with one directory a hierarchy, and symlinks for controllers that
// share one; on v2 the one tree. With a cgroup namespace the hierarchies are mounted anew, which
// shows the container's cgroup as their root; without one the container's own cgroup directories
// are bound.
#pragma once

#include "base/result.h"
#include "spec/mount_options.h"
#include "spec/spec.h"
#include "vmexec/mounts.h"

namespace arca::vmexec {

base::Result<> mountCgroups(MountContext& context, const spec::Mount& mount,
                            const spec::MountOptions& options);

}  // namespace arca::vmexec
