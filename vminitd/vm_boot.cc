#include "vminitd/vm_boot.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr char kMovedRoot[] = "/mnt";
constexpr char kCgroupRoot[] = "/sys/fs/cgroup";
constexpr char kHookCgroup[] = "/sys/fs/cgroup/hooks";
constexpr char kMemoryLow[] = "52428800";  // 50 MiB
constexpr char kOomScore[] = "-999";

Result<> makeDir(const char* path, mode_t mode) {
    if (::mkdir(path, mode) == 0 || errno == EEXIST || errno == EROFS) return {};
    return failErrno(std::string("mkdir ") + path);
}

// An initramfs is the root of the mount namespace, which pivot_root(2) refuses. The same files
// through a bind mount that lies over it are an ordinary mount.
Result<> leaveInitialRoot() {
    struct statfs fs {};
    if (::statfs("/", &fs) != 0) return failErrno("statfs /");
    if (!isInitialRoot(static_cast<unsigned long>(fs.f_type))) return {};
    ARCA_CHECK(makeDir(kMovedRoot, 0755));
    if (::mount("/", kMovedRoot, nullptr, MS_BIND, nullptr) != 0) return failErrno("bind /");
    if (::chdir(kMovedRoot) != 0) return failErrno("chdir to the bound root");
    if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) return failErrno("move the root");
    if (::chroot(".") != 0) return failErrno("chroot to the moved root");
    if (::chdir("/") != 0) return failErrno("chdir /");
    return {};
}

struct BootMount {
    const char* source;
    const char* target;
    const char* type;
    unsigned long flags;
    const char* data;
};

// EBUSY: the kernel, or whoever started us, has mounted it.
Result<> mountOne(const BootMount& what) {
    ARCA_CHECK(makeDir(what.target, 0755));
    if (::mount(what.source, what.target, what.type, what.flags, what.data) == 0) return {};
    if (errno == EBUSY) return {};
    return failErrno(std::string("mount ") + what.type + " at " + what.target);
}

bool write(const std::string& path, std::string_view value) {
    const auto written = base::writeControlFile(AT_FDCWD, path, value);
    if (!written) base::log::warning(written.error().message());
    return written.has_value();
}

// The limit on descriptors is the kernel's own: each stream of each process needs some.
void raiseFileLimit() {
    const auto text = base::readFile("/proc/sys/fs/nr_open");
    const auto most = text ? base::parseNumber<rlim_t>(base::trim(*text)) : std::nullopt;
    if (!most) return base::log::warning("/proc/sys/fs/nr_open: not readable");
    const rlimit limit{*most, *most};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        base::log::warning("raise the limit of open files: " + base::errnoText(errno));
    }
}

// Every controller below the root, so that containers can have them; then the agent's own cgroup.
// The root's processes (all of them the kernel's or ours) do not stand in the way: it is exempt.
void setUpCgroups() {
    const auto available = base::readFile(std::string(kCgroupRoot) + "/cgroup.controllers");
    if (!available) return base::log::warning(available.error().message());
    const std::string control = std::string(kCgroupRoot) + "/cgroup.subtree_control";
    std::string all;
    for (const std::string_view name : base::split(base::trim(*available), ' ')) {
        if (!name.empty()) all += (all.empty() ? "+" : " +") + std::string(name);
    }
    // At once, which is quicker; one by one when the kernel refuses one of them.
    if (!base::writeControlFile(AT_FDCWD, control, all)) {
        for (const std::string_view one : base::split(all, ' ')) (void)write(control, one);
    }
    for (const char* path : {kHookCgroup, kAgentCgroup}) {
        if (::mkdir(path, 0755) == 0 || errno == EEXIST) continue;
        return base::log::warning(std::string("mkdir ") + path + ": " + base::errnoText(errno));
    }
    const std::string own = kAgentCgroup;
    (void)write(own + "/memory.high", std::to_string(kAgentMemoryHigh));
    (void)write(own + "/memory.low", kMemoryLow);
    (void)write(own + "/cgroup.procs", "0");
}

}  // namespace

bool isInitialRoot(unsigned long magic) {
    return magic == RAMFS_MAGIC || magic == TMPFS_MAGIC;
}

Result<> bootMounts() {
    ARCA_CHECK(leaveInitialRoot());
    constexpr unsigned long kGuarded = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    for (const BootMount& one : {
             BootMount{"proc", "/proc", "proc", kGuarded, nullptr},
             BootMount{"devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755"},
             BootMount{"sysfs", "/sys", "sysfs", kGuarded, nullptr},
             // Root file systems may be copied to /run: it is as capable as a disk, and holds more
             // than the half of the memory that is the kernel's own choice.
             BootMount{"tmpfs", "/run", "tmpfs", 0, "mode=0755,size=75%"},
             BootMount{"none", kCgroupRoot, "cgroup2", kGuarded, nullptr},
         }) {
        ARCA_CHECK(mountOne(one));
    }
    return base::makeDirs(kVmStateRoot, 0700);
}

void mountBinfmtMisc() {
    const BootMount binfmt{"none", "/proc/sys/fs/binfmt_misc", "binfmt_misc", MS_NOSUID, nullptr};
    // A kernel without it has no folder for it.
    if (::access(binfmt.target, F_OK) != 0) return;
    const auto mounted = mountOne(binfmt);
    if (!mounted) base::log::debug(mounted.error().message());
}

void bootLimits() {
    raiseFileLimit();
    (void)write("/proc/self/oom_score_adj", kOomScore);
    setUpCgroups();
    // Ctrl-alt-del becomes SIGINT to us instead of a reset without a word.
    (void)::reboot(RB_DISABLE_CAD);
}

}  // namespace arca::vminitd
