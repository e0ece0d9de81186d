#include "vmexec/tmpcopyup.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "base/files.h"

namespace arca::vmexec {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kCopyChunk = size_t{1} << 20U;

Result<> copyContent(int from_dir, int to_dir, const std::string& name, mode_t mode) {
    ARCA_TRY(const UniqueFd from, base::openAt(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    ARCA_TRY(const UniqueFd to,
             base::openAt(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
    while (true) {
        const ssize_t n = ::sendfile(to.get(), from.get(), nullptr, kCopyChunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("copy " + name);
        if (n == 0) return {};
    }
}

Result<> copySymlink(int from_dir, int to_dir, const std::string& name) {
    std::array<char, 4097> text{};
    const ssize_t n = ::readlinkat(from_dir, name.c_str(), text.data(), text.size() - 1);
    if (n < 0) return failErrno("read link " + name);
    if (::symlinkat(text.data(), to_dir, name.c_str()) != 0) return failErrno("symlink " + name);
    return {};
}

Result<> copyOwnerAndTimes(int to_dir, const std::string& name, const struct stat& st) {
    if (::fchownat(to_dir, name.c_str(), st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
        return failErrno("chown " + name);
    // chown clears set-id bits.
    if (!S_ISLNK(st.st_mode) && (st.st_mode & (S_ISUID | S_ISGID)) != 0 &&
        ::fchmodat(to_dir, name.c_str(), st.st_mode & 07777, 0) != 0)
        return failErrno("chmod " + name);
    const std::array<timespec, 2> times{st.st_atim, st.st_mtim};
    if (::utimensat(to_dir, name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) != 0)
        return failErrno("set times of " + name);
    return {};
}

Result<> copyDirectory(int from_fd, int to_fd, dev_t device);

Result<> copyEntry(int from_dir, int to_dir, const std::string& name, dev_t device) {
    struct stat st {};
    if (::fstatat(from_dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
        return failErrno("stat " + name);
    const mode_t mode = st.st_mode & 07777;
    switch (st.st_mode & S_IFMT) {
        case S_IFDIR: {
            if (::mkdirat(to_dir, name.c_str(), mode) != 0) return failErrno("mkdir " + name);
            if (st.st_dev != device) break;  // another mount: its mount point is enough
            ARCA_TRY(const UniqueFd from,
                     base::openAt(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
            ARCA_TRY(const UniqueFd to,
                     base::openAt(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
            ARCA_CHECK(copyDirectory(from.get(), to.get(), device));
            break;
        }
        case S_IFREG:
            ARCA_CHECK(copyContent(from_dir, to_dir, name, mode));
            break;
        case S_IFLNK:
            ARCA_CHECK(copySymlink(from_dir, to_dir, name));
            break;
        default:
            if (::mknodat(to_dir, name.c_str(), st.st_mode, st.st_rdev) != 0)
                return failErrno("mknod " + name);
    }
    return copyOwnerAndTimes(to_dir, name, st);
}

Result<> copyDirectory(int from_fd, int to_fd, dev_t device) {
    ARCA_TRY(const std::vector<std::string> names, base::listDir(from_fd));
    for (const std::string& name : names) ARCA_CHECK(copyEntry(from_fd, to_fd, name, device));
    return {};
}

}  // namespace

Result<> copyUp(int from_fd, int to_fd) {
    struct stat st {};
    if (::fstat(from_fd, &st) != 0) return failErrno("stat");
    ARCA_TRY(const UniqueFd from, base::openAt(from_fd, ".", O_RDONLY | O_DIRECTORY));
    return copyDirectory(from.get(), to_fd, st.st_dev);
}

}  // namespace arca::vmexec
