#include "vmexec/credentials.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

Result<> becomeNamespaceRoot() {
    // Not permitted where setgroups is denied; the groups of the caller are unmapped there.
    if (::syscall(SYS_setgroups, 0, nullptr) != 0 && errno != EPERM) return failErrno("setgroups");
    if (::syscall(SYS_setresgid, 0, 0, 0) != 0)
        return failErrno("become group 0 of the user namespace (is it in gidMappings?)");
    if (::syscall(SYS_setresuid, 0, 0, 0) != 0)
        return failErrno("become user 0 of the user namespace (is it in uidMappings?)");
    return {};
}

void giveStdio(uid_t uid) {
    for (int fd = 0; fd < 3; ++fd) {
        struct stat st {};
        if (::fstat(fd, &st) != 0 || st.st_uid == uid) continue;
        if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) continue;
        // EROFS, EPERM, EINVAL (an id that the file system cannot express): it stays as it is.
        [[maybe_unused]] const int given = ::fchown(fd, uid, static_cast<gid_t>(-1));
    }
}

Result<> changeUser(const spec::User& user) {
    const auto& groups = user.additionalGids;
    if (::syscall(SYS_setgroups, groups.size(), groups.data()) != 0 &&
        !(errno == EPERM && groups.empty()))
        return failErrno("set additional groups");
    if (::syscall(SYS_setresgid, user.gid, user.gid, user.gid) != 0)
        return failErrno("set gid " + std::to_string(user.gid));
    if (::syscall(SYS_setresuid, user.uid, user.uid, user.uid) != 0)
        return failErrno("set uid " + std::to_string(user.uid));
    return {};
}

void makeCwd(int root_fd, const std::string& cwd) {
    if (cwd != "/") (void)base::makeDirsInRoot(root_fd, cwd, 0755);
}

Result<> enterCwd(int root_fd, const std::string& cwd) {
    const auto failed = [&](int why) {
        return failErrno(
            "chdir to cwd (\"" + base::printable(cwd) + "\") set in config.json failed", why);
    };
    if (cwd.empty() || cwd.front() != '/')
        return fail(Code::kInvalidArgument, "cwd must be an absolute path");
    const auto dir = base::openInRoot(root_fd, cwd, O_PATH | O_DIRECTORY);
    if (!dir) return failed(dir.error().sysErrno());
    if (::fchdir(dir->get()) != 0) return failed(errno);
    return {};
}

Result<> checkCwdInsideRoot() {
    std::array<char, PATH_MAX> path{};
    // The raw call: glibc's would try to make up a name of its own.
    if (::syscall(SYS_getcwd, path.data(), path.size()) < 0)
        return failErrno("read the working directory");
    if (path[0] != '/') {
        return fail(Code::kPermissionDenied,
                    "the working directory is outside of the container's root", EPERM);
    }
    return {};
}

}  // namespace arca::vmexec
