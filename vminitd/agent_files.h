// The calls about single files: Mkdir, WriteFile, Stat, and freeze, thaw and trim of their file
// system.
//
// May block for as long as a file system does: worker threads only. Nothing here touches the
// agent's state.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vminitd/guest_path.h"

namespace arca::vminitd {

// `all`: parents too (0755), and an existing directory is fine. `perms` are the new directory's
// mode whatever the umask; 0 means 0755.
base::Result<> makeDirectory(const GuestPath& path, bool all, uint32_t perms);

struct WriteFileRequest {
    std::string_view data;
    uint32_t mode = 0;  // 0: 0644; only for a new file
    bool create_parent_dirs = false;
    bool append = false;
    bool create_if_missing = false;
};
// Replaces the file's content (or appends to it).
base::Result<> writeFile(const GuestPath& path, const WriteFileRequest& request);

// Opens a file for writing without ever waiting for a FIFO's reader: inside a container's folder
// regular files only, elsewhere character devices too. `mode`, whatever the umask, is a new file's.
enum class Existing { kTruncate, kAppend };
enum class Missing { kError, kCreate };
base::Result<base::UniqueFd> openForWriting(const GuestPath& path, Existing existing,
                                            Missing missing, mode_t mode);

// stat(2), following symlinks.
base::Result<struct stat> statFile(const GuestPath& path);

enum class FilesystemAction { kFreeze, kThaw, kTrim };
// On the file system that `path` is on; the path must not be a symlink. Gives the bytes that were
// trimmed, 0 for the others. kNotFound when the path cannot be looked up for whatever reason.
base::Result<uint64_t> filesystemOperation(const GuestPath& path, FilesystemAction action);

}  // namespace arca::vminitd
