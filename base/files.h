// Files and directories, by descriptor wherever a name could change under us.
//
// No function here follows a name that a container or a bundle controls twice: paths inside a
// rootfs go through openInRoot() once and are then used by descriptor.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// Opens `path` (O_CLOEXEC is added) relative to `dir_fd` (AT_FDCWD for the working directory).
Result<UniqueFd> openAt(int dir_fd, const std::string& path, int flags, mode_t mode = 0);

// Opens `path` as seen by a process whose root directory is `root_fd`: absolute paths and symlinks
// resolve inside it, ".." stops at it, and magic links (/proc/*/fd/N) are refused. O_CLOEXEC is
// added. Source: openat2(2), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS. EAGAIN (a rename raced) is
// retried.
Result<UniqueFd> openInRoot(int root_fd, const std::string& path, int flags, mode_t mode = 0);

// A name inside a root and what is there.
struct PathInRoot {
    UniqueFd parent;   // O_PATH of the directory that holds it
    std::string name;  // one component; empty for the root itself
    UniqueFd fd;       // O_PATH of the object, never a symlink; invalid when there is none
};

// Walks `path` inside `root_fd` part by part, each relative to the descriptor of the one before.
// Symlinks are followed by their text, inside the root, also when what they name is missing:
// parents that are not there are made with `missing_parents_mode`, the last part is not. ELOOP
// after 40 symlinks.
Result<PathInRoot> resolveInRoot(int root_fd, const std::string& path, mode_t missing_parents_mode);

// Like `mkdir -p` for `path` inside `root_fd`, and gives the last directory as O_PATH. Symlinks as
// in resolveInRoot(); a missing part is made with `mode`.
Result<UniqueFd> makeDirsInRoot(int root_fd, const std::string& path, mode_t mode);

// Reads from `fd` to its end. Fails with kInvalidArgument once more than `limit_bytes` came.
Result<std::string> readAll(int fd, size_t limit_bytes);
// The same for a file by name; `what` in messages is the path.
Result<std::string> readFile(const std::string& path, size_t limit_bytes = size_t{16} << 20U,
                             int dir_fd = -100 /* AT_FDCWD */);

// Writes all of `data`, however many calls that takes; EINTR is retried.
Result<> writeAll(int fd, std::string_view data);
// Opens with O_WRONLY and writes `data` in one write(2): for files of /proc, /sys and cgroups,
// where one write is one command. A short write is an error.
Result<> writeControlFile(int dir_fd, const std::string& path, std::string_view data);

// Replaces `name` in `dir_fd` as a whole: a reader sees the old or the new content, also after a
// power cut (write new, fsync, rename). `mode` is the new file's, before the umask.
Result<> replaceFile(int dir_fd, const std::string& name, std::string_view data,
                     mode_t mode = 0600);

// `mkdir -p` outside any rootfs. Existing directories keep their mode.
Result<> makeDirs(const std::string& path, mode_t mode);

// Deletes `name` in `dir_fd` and all below it, never following a symlink and never crossing into
// another mount (also a bind mount of the same file system): EBUSY then. Missing is success.
Result<> removeTree(int dir_fd, const std::string& name);

// Names in a directory, without "." and "..", sorted.
Result<std::vector<std::string>> listDir(int dir_fd, const std::string& path = ".");

// Whether two descriptors are of the same file, directory or namespace.
Result<bool> isSameFile(int a, int b);

// "/proc/self/fd/N": the name under which calls that take only a path reach an O_PATH descriptor.
std::string fdPath(int fd);

// Sets O_CLOEXEC on every descriptor from `first` up, so that nothing the caller leaked survives
// exec. Source: close_range(2), CLOSE_RANGE_CLOEXEC; falls back to /proc/self/fd on older kernels.
Result<> closeOnExecFrom(int first);

}  // namespace arca::base
