// The configuration's mounts, inside the rootfs, in the order given. Init's side, before
// pivot_root.
#pragma once

#include <vector>

#include "base/mount_api.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/mount_options.h"
#include "spec/plan.h"
#include "vmexec/channel.h"
#include "vmexec/mount_sources.h"

namespace arca::vmexec {

struct MountContext {
    const spec::Plan& plan;
    int root_fd;
    MountSources& sources;
    const Channel& channel;  // for warnings
    bool in_userns = false;
    bool dev_is_bind = false;  // set when /dev is a bind mount: its nodes are not ours to make

    // What becomes read-only once everything inside is made.
    struct Sealed {
        base::UniqueFd mount;
        base::Depth depth;
    };
    std::vector<Sealed> read_only_last;
};

// Makes all of spec.mounts. Fails at the first that cannot be made: "mount SOURCE at DESTINATION:
// reason".
base::Result<> makeMounts(MountContext& context);

// Makes tmpfs mounts and /dev read-only that asked for it: to be called when nothing is made inside
// them any more.
base::Result<> sealMounts(MountContext& context);

// Sets what the options name on an attached mount, then its propagation. What has to wait goes to
// `context.read_only_last`. Shared with cgroup_mount.cc.
base::Result<> finishMount(MountContext& context, base::UniqueFd mount,
                           const spec::MountOptions& options, bool read_only_last);

}  // namespace arca::vmexec
