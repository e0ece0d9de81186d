#include "vmexec/mount_target.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr mode_t kDirMode = 0755;
constexpr mode_t kFileMode = 0644;
constexpr ino_t kProcRootInode = 1;

// Opens without following any symlink: then the path that was asked for is the true one.
UniqueFd openPlain(int root_fd, const std::string& path) {
    open_how how{};
    how.flags = O_PATH | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
    return UniqueFd(
        static_cast<int>(::syscall(SYS_openat2, root_fd, path.c_str(), &how, sizeof how)));
}

Result<std::string> linkOf(int fd) {
    std::array<char, 4096> name{};
    const ssize_t n = ::readlink(base::fdPath(fd).c_str(), name.data(), name.size());
    if (n < 0) return failErrno("readlink");
    return std::string(name.data(), static_cast<size_t>(n));
}

// Where the descriptor really is, as an absolute path inside the root.
Result<std::string> pathInRoot(int root_fd, int fd) {
    ARCA_TRY(const std::string root, linkOf(root_fd));
    ARCA_TRY(std::string path, linkOf(fd));
    if (root != "/" && path.starts_with(root)) path.erase(0, root.size());
    return path.empty() ? "/" : path;
}

// The usual missing target: a directory in one that is there, with no symlink on the way.
UniqueFd makePlainDir(int root_fd, const std::string& path) {
    const size_t slash = path.rfind('/');
    const UniqueFd parent = openPlain(root_fd, path.substr(0, slash + 1));
    const std::string name = path.substr(slash + 1);
    if (!parent.valid() || ::mkdirat(parent.get(), name.c_str(), kDirMode) != 0) return UniqueFd();
    return UniqueFd(::openat(parent.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

Result<> makeTarget(int root_fd, const std::string& path, TargetKind kind) {
    if (kind == TargetKind::kDirectory) {
        ARCA_CHECK(base::makeDirsInRoot(root_fd, path, kDirMode));
        return {};
    }
    ARCA_TRY(const base::PathInRoot end, base::resolveInRoot(root_fd, path, kDirMode));
    if (end.fd.valid()) return {};
    const UniqueFd made(::openat(end.parent.get(), end.name.c_str(),
                                 O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kFileMode));
    if (!made.valid() && errno != EEXIST) return failErrno("make " + path);
    return {};
}

// A part of procfs would do as little as another file system.
bool isWholeProcfs(int fd) {
    struct statfs fs {};
    struct stat st {};
    return ::fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC && ::fstat(fd, &st) == 0 &&
           st.st_ino == kProcRootInode;
}

}  // namespace

Result<MountTarget> openMountTarget(int root_fd, const std::string& destination, TargetKind kind) {
    MountTarget target;
    target.path = base::cleanPath("/" + destination);
    if (target.path == "/") return fail(Code::kInvalidArgument, "the root cannot be mounted over");
    target.existed = true;
    target.fd = openPlain(root_fd, target.path);
    if (target.fd.valid()) return target;
    if (errno != ENOENT && errno != ELOOP) return failErrno("open " + target.path);
    if (errno == ENOENT && kind == TargetKind::kDirectory) {
        target.existed = false;
        target.fd = makePlainDir(root_fd, target.path);
        if (target.fd.valid()) return target;
        target.existed = true;
    }
    auto found = base::openInRoot(root_fd, target.path, O_PATH);
    if (!found) {
        if (found.error().sysErrno() != ENOENT) return fail(std::move(found).error());
        target.existed = false;
        ARCA_CHECK(makeTarget(root_fd, target.path, kind));
        found = base::openInRoot(root_fd, target.path, O_PATH);
        if (!found) return fail(std::move(found).error());
    }
    target.fd = std::move(*found);
    ARCA_TRY(target.path, pathInRoot(root_fd, target.fd.get()));
    if (target.path == "/") return fail(Code::kInvalidArgument, "the root cannot be mounted over");
    return target;
}

Result<> checkProcTarget(const MountTarget& target, const std::string& type, int source_fd) {
    constexpr std::array<std::string_view, 10> kAllowed = {"/proc/cpuinfo",
                                                           "/proc/diskstats",
                                                           "/proc/loadavg",
                                                           "/proc/meminfo",
                                                           "/proc/slabinfo",
                                                           "/proc/stat",
                                                           "/proc/swaps",
                                                           "/proc/uptime",
                                                           "/proc/sys/kernel/ns_last_pid",
                                                           "/proc/sys/crypto/fips_enabled"};
    const bool is_root = target.path == "/proc";
    if (!is_root && !target.path.starts_with("/proc/")) return {};
    if (is_root) {
        if (type == "proc" || (source_fd >= 0 && isWholeProcfs(source_fd))) return {};
        return fail(Code::kInvalidArgument,
                    "\"/proc\" cannot be mounted because it is not of type proc");
    }
    if (std::find(kAllowed.begin(), kAllowed.end(), target.path) != kAllowed.end()) return {};
    return fail(Code::kInvalidArgument, "\"" + base::printable(target.path) +
                                            "\" cannot be mounted because it is inside /proc");
}

}  // namespace arca::vmexec
