// The kernel's descriptor-based mount interface (open_tree, move_mount, mount_setattr, fsopen), as
// functions that give a Result.
//
// A mount is made detached, changed through its descriptor and then attached to a descriptor of the
// target, so no name inside a rootfs is looked up twice. Source: mount_setattr(2), open_tree(2) and
// Linux' Documentation/filesystems/mount_api.rst.
#pragma once

#include <sys/mount.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

enum class Depth {
    kTop,   // the mount alone
    kTree,  // and all that is mounted below it
};

// What mount_setattr(2) is to change. `propagation`: one of MS_SHARED, MS_SLAVE, MS_PRIVATE,
// MS_UNBINDABLE, or 0.
struct MountAttributes {
    uint64_t set = 0;    // MOUNT_ATTR_*
    uint64_t clear = 0;  // MOUNT_ATTR_*
    uint64_t propagation = 0;
    int userns_fd = -1;  // with MOUNT_ATTR_IDMAP

    [[nodiscard]] bool empty() const { return set == 0 && clear == 0 && propagation == 0; }
};

// A detached copy of what is at `path` below `dir_fd`; an empty `path` means `dir_fd` itself.
Result<UniqueFd> cloneTree(int dir_fd, const std::string& path, Depth depth);

// Changes the mount that `mount_fd` is the root of. On a kernel without mount_setattr (before 5.12)
// the top of an attached mount is changed by mount(2) through /proc/self/fd, keeping the flags that
// it has; what that call cannot do is kUnsupported, never silently less.
Result<> setMountAttributes(int mount_fd, const MountAttributes& attributes, Depth depth);

// Attaches the detached (or moves the attached) mount `mount_fd` onto `target_fd`.
Result<> attachMount(int mount_fd, int target_fd);

// One mount of a file system as mount(2) would be asked for it.
struct FilesystemRequest {
    std::string type{};
    std::string source{};
    unsigned long superblock_flags = 0;  // MS_* that belong to the superblock
    uint64_t attributes = 0;             // MOUNT_ATTR_*
    std::vector<std::string> data{};     // "key" or "key=value"
};

// Makes the file system and gives its detached mount. The error carries what the file system wrote
// to its log. kUnsupported when the request needs mount(2) instead: a value longer than the 255
// bytes that fsconfig(2) takes, MS_I_VERSION, or a kernel without fsopen.
Result<UniqueFd> makeFilesystem(const FilesystemRequest& request);

// The same by mount(2) onto `target_fd` (through /proc/self/fd), for requests that the above cannot
// make. Gives a descriptor of the mount's root.
Result<UniqueFd> mountClassic(const FilesystemRequest& request, int target_fd);

// MOUNT_ATTR_* as the flags of mount(2).
unsigned long classicFlags(uint64_t attributes);

// Runs statx(2) on a descriptor and gives the id of the mount that it is in.
Result<uint64_t> mountIdOf(int fd);

}  // namespace arca::base
