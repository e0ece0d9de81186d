#include "runtime/monitor/share.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>

#include "base/files.h"
#include "base/ids.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// Holds directories and empty files only.
constexpr char kTmpfsOptions[] = "mode=0755,size=4m,nr_inodes=65536";

Result<std::string> pathOf(int fd) {
    char buffer[4096];
    const ssize_t n = ::readlink(base::fdPath(fd).c_str(), buffer, sizeof buffer);
    if (n < 0) return failErrno("readlink the sandbox's folder");
    return std::string(buffer, static_cast<size_t>(n));
}

Result<> makeDir(int dir_fd, const std::string& name) {
    if (::mkdirat(dir_fd, name.c_str(), 0755) != 0 && errno != EEXIST) {
        return failErrno("mkdir " + name);
    }
    return {};
}

bool isName(const std::string& name) {
    if (name.empty() || name.size() > 32) return false;
    for (const char c : name) {
        if (std::isalnum(static_cast<unsigned char>(c)) == 0) return false;
    }
    return true;
}

}  // namespace

Result<Share> Share::make(int dir_fd) {
    // Before that: seen from another mount namespace a descriptor's path is that of the whole
    // machine, of which a command in a chroot has only a part.
    ARCA_TRY(const std::string dir, pathOf(dir_fd));
    if (::unshare(CLONE_NEWNS) != 0) return failErrno("make a mount namespace");
    // What the caller unmounts must go here too: nothing of the host is held.
    if (::mount("", "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0) {
        return failErrno("make mounts slaves");
    }
    const std::string writable = dir + "/share.rw";
    const std::string served = dir + "/share";
    ARCA_CHECK(makeDir(dir_fd, "share.rw"));
    ARCA_CHECK(makeDir(dir_fd, "share"));
    if (::mount("arca-share", writable.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, kTmpfsOptions) !=
        0) {
        return failErrno("mount " + writable);
    }
    // Shared: what is mounted below it later shows up in its image, and in the namespace of
    // virtiofsd, which makes itself a slave.
    if (::mount("", writable.c_str(), nullptr, MS_SHARED, nullptr) != 0) {
        return failErrno("make " + writable + " shared");
    }
    if (::mount(writable.c_str(), served.c_str(), nullptr, MS_BIND, nullptr) != 0) {
        return failErrno("bind " + served);
    }
    if (::mount("", served.c_str(), nullptr,
                MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr) != 0) {
        return failErrno("make " + served + " read-only");
    }
    ARCA_TRY(UniqueFd root, base::openAt(AT_FDCWD, writable, O_PATH | O_DIRECTORY));
    return Share(std::move(root), served);
}

Result<> Share::add(const std::string& container, const std::string& name, int tree) {
    ARCA_CHECK(base::validateId(container));
    if (!isName(name)) return fail(Code::kInvalidArgument, "share: malformed name");
    struct stat st {};
    if (::fstat(tree, &st) != 0) return failErrno("stat a shared tree");
    ARCA_CHECK(makeDir(root_.get(), container));
    ARCA_TRY(const UniqueFd folder,
             base::openAt(root_.get(), container, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    if (S_ISDIR(st.st_mode)) {
        ARCA_CHECK(makeDir(folder.get(), name));
    } else {
        ARCA_CHECK(base::openAt(folder.get(), name, O_WRONLY | O_CREAT | O_NOFOLLOW, 0644));
    }
    if (::syscall(SYS_move_mount, tree, "", folder.get(), name.c_str(), MOVE_MOUNT_F_EMPTY_PATH) !=
        0) {
        return failErrno("share " + container + "/" + name);
    }
    return {};
}

void Share::remove(const std::string& container) {
    auto folder = base::openAt(root_.get(), container, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!folder) return;
    const auto names = base::listDir(folder->get());
    if (!names) return;
    for (const std::string& name : *names) {
        const std::string path = base::fdPath(folder->get()) + "/" + name;
        (void)::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
        if (::unlinkat(folder->get(), name.c_str(), AT_REMOVEDIR) != 0) {
            (void)::unlinkat(folder->get(), name.c_str(), 0);
        }
    }
    (void)::unlinkat(root_.get(), container.c_str(), AT_REMOVEDIR);
}

}  // namespace arca::runtime
