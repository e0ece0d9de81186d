#include "vmexec/proc_fs.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "base/mount_api.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::makeFilesystem;
using base::Result;
using base::UniqueFd;

namespace {

bool isProcfs(int fd) {
    struct statfs st {};
    return ::fstatfs(fd, &st) == 0 && st.f_type == PROC_SUPER_MAGIC;
}

Result<UniqueFd> openForWrite(int root_fd, const std::string& path) {
    open_how how{};
    how.flags = O_WRONLY | O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
    UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, root_fd, path.c_str(), &how, sizeof how)));
    if (!fd.valid()) return failErrno("open /proc/" + path);
    if (!isProcfs(fd.get()))
        return fail(Code::kPermissionDenied, "open /proc/" + path + ": not on procfs", EPERM);
    return fd;
}

}  // namespace

Result<ProcFs> ProcFs::open() {
    ARCA_TRY(UniqueFd root, base::openAt(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY));
    if (!isProcfs(root.get())) return fail(Code::kFailedPrecondition, "/proc: not a procfs");
    return ProcFs(std::move(root));
}

Result<> ProcFs::write(const std::string& path, std::string_view data) const {
    auto fd = openForWrite(root_.get(), path);
    if (!fd && (fd.error().sysErrno() == EXDEV || fd.error().sysErrno() == EROFS)) {
        auto fresh = makeFilesystem({.type = "proc", .source = "proc"});
        if (fresh) fd = openForWrite(fresh->get(), path);
    }
    if (!fd) return fail(std::move(fd).error());
    ssize_t n = 0;
    do {
        n = ::write(fd->get(), data.data(), data.size());
    } while (n < 0 && errno == EINTR);
    const std::string what =
        "write \"" + base::printable(data.substr(0, 80)) + "\" to /proc/" + path;
    if (n < 0) return failErrno(what);
    if (static_cast<size_t>(n) != data.size()) return fail(Code::kSystem, what + ": short write");
    return {};
}

}  // namespace arca::vmexec
