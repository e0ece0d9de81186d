#include "vmexec/console.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <limits>

#include "base/files.h"
#include "base/mount_api.h"
#include "base/strings.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#ifndef DEVPTS_SUPER_MAGIC
#define DEVPTS_SUPER_MAGIC 0x1cd1
#endif

namespace arca::vmexec {

using base::attachMount;
using base::cloneTree;
using base::Code;
using base::Depth;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr unsigned kPtmxMajor = 5;
constexpr unsigned kPtmxMinor = 2;

bool isOnDevpts(int fd) {
    struct statfs fs {};
    return ::fstatfs(fd, &fs) == 0 && fs.f_type == DEVPTS_SUPER_MAGIC;
}

bool isMultiplexer(int fd) {
    struct stat st {};
    return ::fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) &&
           st.st_rdev == makedev(kPtmxMajor, kPtmxMinor) && isOnDevpts(fd);
}

Result<UniqueFd> openMaster(int root_fd) {
    const std::string path = "/dev/pts/ptmx";
    // First only as a name: opening a device has effects, so it has to be the right one. An exec's
    // container may change the name in between, so what was opened is looked at again. Not through
    // /proc/self/fd: after joining a container that is the container's.
    auto found = base::openInRoot(root_fd, path, O_PATH | O_NOFOLLOW);
    if (!found) {
        return fail(std::move(found).error().withContext(
            "a terminal needs a devpts at /dev/pts in the container"));
    }
    if (isMultiplexer(found->get())) {
        ARCA_TRY(UniqueFd master,
                 base::openInRoot(root_fd, path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW));
        if (::fcntl(master.get(), F_SETFL, 0) != 0) return failErrno("open " + path);
        if (isMultiplexer(master.get())) return master;
    }
    return fail(Code::kFailedPrecondition, path + ": not the multiplexer of a devpts");
}

Result<> setSize(int fd, unsigned long rows, unsigned long columns) {
    constexpr unsigned long kMax = std::numeric_limits<unsigned short>::max();
    if (rows > kMax || columns > kMax)
        return fail(Code::kInvalidArgument, "terminal size: larger than 65535");
    winsize size{};
    size.ws_row = static_cast<unsigned short>(rows);
    size.ws_col = static_cast<unsigned short>(columns);
    if (::ioctl(fd, TIOCSWINSZ, &size) != 0) return failErrno("set terminal size");
    return {};
}

}  // namespace

Result<Console> openConsole(int root_fd, const std::optional<spec::ConsoleSize>& size) {
    Console console;
    ARCA_TRY(console.master, openMaster(root_fd));
    int unlock = 0;
    if (::ioctl(console.master.get(), TIOCSPTLCK, &unlock) != 0)
        return failErrno("unlock terminal");
    console.slave =
        UniqueFd(::ioctl(console.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!console.slave.valid()) return failErrno("open terminal");
    if (!isOnDevpts(console.slave.get()))
        return fail(Code::kFailedPrecondition, "open terminal: not on a devpts");
    if (size && (size->height != 0 || size->width != 0))
        ARCA_CHECK(setSize(console.slave.get(), size->height, size->width));
    return console;
}

Result<> bindConsole(int root_fd, int slave_fd) {
    ARCA_TRY(const UniqueFd dev, base::makeDirsInRoot(root_fd, "/dev", 0755));
    // O_EXCL never follows a symlink; an existing file is only opened as a name.
    const UniqueFd made(
        ::openat(dev.get(), "console", O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!made.valid() && errno != EEXIST) return failErrno("make /dev/console");
    ARCA_TRY(const UniqueFd target, base::openAt(dev.get(), "console", O_PATH | O_NOFOLLOW));
    struct stat st {};
    if (::fstat(target.get(), &st) != 0) return failErrno("stat /dev/console");
    if (S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))
        return fail(Code::kFailedPrecondition, "/dev/console: neither a device nor a file");
    ARCA_TRY(const UniqueFd tree, cloneTree(slave_fd, "", Depth::kTop));
    auto attached = attachMount(tree.get(), target.get());
    if (!attached) return fail(std::move(attached).error().withContext("bind /dev/console"));
    return {};
}

Result<> useConsole(int slave_fd, uid_t uid) {
    if (::ioctl(slave_fd, TIOCSCTTY, 0) != 0) return failErrno("set controlling terminal");
    // The group stays devpts' own (tty), which lets write(1) in.
    if (::fchown(slave_fd, uid, static_cast<gid_t>(-1)) != 0) return failErrno("chown terminal");
    for (int fd = 0; fd < 3; ++fd) {
        if (::dup2(slave_fd, fd) < 0) return failErrno("dup terminal");
    }
    return {};
}

Result<> setWindowSize(int fd, std::string_view rows_and_columns) {
    const auto parts = base::split(rows_and_columns, ' ');
    if (parts.size() == 2) {
        const auto rows = base::parseNumber<uint32_t>(parts[0]);
        const auto columns = base::parseNumber<uint32_t>(parts[1]);
        if (rows && columns) return setSize(fd, *rows, *columns);
    }
    return fail(Code::kInvalidArgument,
                "terminal size \"" + base::printable(rows_and_columns) + "\": not two numbers");
}

}  // namespace arca::vmexec
