// mounts[].options as what the kernel is asked for.
//
// Pure: no system calls. Source: runtime-spec config.md, "Linux mount options"; mount(8).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/mount_api.h"
#include "base/result.h"

namespace arca::spec {

enum class IdmapOption { kNone, kTop, kTree };

struct PropagationChange {
    uint64_t type;  // MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE
    base::Depth depth;
    bool operator==(const PropagationChange&) const = default;
};

struct MountOptions {
    // Attributes of the mount itself and of its whole tree: what the options name and nothing else,
    // so that a bind keeps what its source has.
    base::MountAttributes top;
    base::MountAttributes tree;
    unsigned long superblock_flags = 0;  // MS_RDONLY, MS_SYNCHRONOUS, ... for a new file system
    std::vector<PropagationChange> propagation;  // in the order given
    bool bind = false;
    base::Depth bind_depth = base::Depth::kTop;
    bool remount = false;
    bool tmpcopyup = false;
    IdmapOption idmap = IdmapOption::kNone;
    std::vector<std::string> data;  // all that is no option of the table
};

// Reads the options of one mount in order; later ones win. Fails with kInvalidArgument on a NUL
// byte. `type` "bind" counts as the option bind.
base::Result<MountOptions> parseMountOptions(std::string_view type,
                                             const std::vector<std::string>& options);

// The one propagation word of linux.rootfsPropagation; type 0 for "".
base::Result<PropagationChange> parsePropagation(std::string_view word);

// True when `name` is an option with a meaning of its own, i.e. is never passed to a file system.
bool isKnownMountOption(std::string_view name);

}  // namespace arca::spec
