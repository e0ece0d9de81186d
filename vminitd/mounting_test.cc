// Mounts, in a mount namespace of the test's own.
#include "vminitd/mounting.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "base/namespaces_test.h"
#include "vminitd/agent_files.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using base::Claims;
using base::Code;
using base::inNamespaces;
using base::isRoot;

struct Host {
    std::string containers;
    int pauses = 0;
    int rescans = 0;
    std::function<void()> on_pause{};

    [[nodiscard]] GuestPath path(const std::string& text) const {
        return GuestPath::parse(text, containers).value();
    }
    base::Result<> mount(const std::string& type, const std::string& source,
                         const std::string& destination, std::vector<std::string> options = {}) {
        return mountAt({.type = type,
                        .source = source,
                        .destination = path(destination),
                        .options = std::move(options)},
                       {.containers = containers,
                        .pause =
                            [this](std::chrono::milliseconds) {
                                ++pauses;
                                if (on_pause) on_pause();
                                return true;
                            },
                        .rescan = [this] { ++rescans; }});
    }
    base::Result<> umount(const std::string& where, int flags = 0) {
        return umountAt(path(where), flags, [this](std::chrono::milliseconds time) {
            ++pauses;
            if (on_pause) on_pause();
            (void)::usleep(static_cast<useconds_t>(time.count()) * 1000);
            return true;
        });
    }
};

unsigned long flagsOf(const std::string& path) {
    struct statvfs st {};
    return ::statvfs(path.c_str(), &st) == 0 ? st.f_flag : 0;
}

bool isMountPoint(const std::string& path) {
    const auto mounts = base::readFile("/proc/self/mountinfo");
    return mounts && mounts->find(" " + path + " ") != std::string::npos;
}

void options(Claims& claims, const std::string& dir) {
    Host host{.containers = dir + "/containers"};
    const std::string t = dir + "/deep/t";
    claims.works(
        host.mount("tmpfs", "tmpfs", t, {"defaults", "nosuid", "noexec", "mode=0711", "ro"}),
        "a tmpfs");
    const unsigned long flags = flagsOf(t);
    claims.check((flags & ST_NOSUID) != 0 && (flags & ST_NOEXEC) != 0 && (flags & ST_RDONLY) != 0,
                 "its flags");
    struct stat st {};
    claims.check(::stat(t.c_str(), &st) == 0 && (st.st_mode & 07777U) == 0711U, "its data");
    claims.works(host.mount("", "", t, {"remount", "rw"}), "remount");
    claims.check((flagsOf(t) & ST_RDONLY) == 0, "remounted read-write");
    claims.works(host.mount("none", "", t, {"rshared"}), "propagation alone");
    const auto info = base::readFile("/proc/self/mountinfo");
    claims.check(info->find(t + " rw") != std::string::npos &&
                     info->find("shared:", info->find(t + " rw")) != std::string::npos,
                 "shared");
    const auto wrong = host.mount("tmpfs", "tmpfs", dir + "/x", {"nosuchoption=1"});
    claims.check(!wrong && wrong.error().message().find("nosuchoption") != std::string::npos,
                 "an unknown option goes to the file system, which says no");
    claims.check(!host.mount("nosuchfs", "x", dir + "/x"), "an unknown type");
    claims.check(host.mount("", "", dir + "/x").error().code() == Code::kInvalidArgument,
                 "neither type nor bind");
    claims.check(
        host.mount("tmpfs", "x", dir + "/x", {"tmpcopyup"}).error().code() == Code::kUnsupported,
        "tmpcopyup");
    claims.check(host.pauses == 0 && host.rescans == 0, "nothing of this is tried again");
}

void binds(Claims& claims, const std::string& dir) {
    Host host{.containers = dir + "/containers"};
    (void)base::makeDirs(dir + "/from/sub", 0755);
    (void)base::writeAll(
        base::openAt(AT_FDCWD, dir + "/from/file", O_WRONLY | O_CREAT, 0644)->get(), "text");
    claims.works(host.mount("none", dir + "/from", dir + "/to", {"bind", "ro"}), "bind a folder");
    claims.check((flagsOf(dir + "/to") & ST_RDONLY) != 0, "read-only");
    claims.check((flagsOf(dir + "/from") & ST_RDONLY) == 0, "only the bind");
    claims.works(host.mount("bind", dir + "/from/file", dir + "/new/file"), "bind a file");
    claims.check(*base::readFile(dir + "/new/file") == "text", "on a file that was made");
    // Into a container: the image's symlink leads nowhere outside.
    const std::string rootfs = dir + "/containers/c/rootfs";
    (void)base::makeDirs(rootfs + "/real", 0755);
    (void)::symlink(dir.c_str(), (rootfs + "/out").c_str());
    (void)::symlink("/real", (rootfs + "/in").c_str());
    (void)base::makeDirs(dir + "/victim", 0755);
    claims.works(host.mount("tmpfs", "t", rootfs + "/out/victim"), "mount behind a symlink");
    claims.check(!isMountPoint(dir + "/victim"), "the victim is none");
    claims.works(host.mount("tmpfs", "t", rootfs + "/in/m"), "mount behind a good symlink");
    claims.check(isMountPoint(rootfs + "/real/m"), "inside");
    claims.works(host.umount(rootfs + "/in/m"), "umount by the same name");
    claims.check(!isMountPoint(rootfs + "/real/m"), "it is gone");
    claims.check(!host.mount("none", rootfs + "/out/from/file", dir + "/stolen", {"bind"}),
                 "a source behind a symlink");
}

void retries(Claims& claims, const std::string& dir) {
    Host host{.containers = dir + "/containers"};
    const auto none = host.mount("virtiofs", "nosuchtag", dir + "/v");
    claims.check(!none && host.pauses == 20 && host.rescans == 1, "20 tries for virtiofs");
    host.pauses = 0;
    const auto disk = host.mount("ext4", "/dev/vdnosuch", dir + "/d");
    claims.check(!disk && host.pauses == 20, "20 tries for a disk");
    claims.check(
        !disk && disk.error().message().find("no such file or directory") != std::string::npos,
        "the first error is told");
    // It comes while we wait: an option that works from the third try on.
    host.pauses = 0;
    const std::string late = dir + "/late";
    (void)::mount("tmpfs", "/dev", "tmpfs", 0, nullptr);
    host.on_pause = [&] {
        if (host.pauses == 3) {
            (void)base::makeDirs("/dev/vdz", 0755);
        }
    };
    claims.works(host.mount("none", "/dev/vdz", late, {"bind"}), "a late source");
    claims.check(host.pauses == 3, "at once when it is there");
}

void busy(Claims& claims, const std::string& dir) {
    Host host{.containers = dir + "/containers"};
    const std::string t = dir + "/t";
    claims.works(host.mount("tmpfs", "t", t), "mount");
    base::UniqueFd held(::open(t.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const auto before = std::chrono::steady_clock::now();
    const auto told = host.umount(t);
    const auto took = std::chrono::steady_clock::now() - before;
    claims.check(!told && told.error().code() == Code::kFailedPrecondition &&
                     told.error().message() == t + ": device or resource busy",
                 "a busy mount is an error");
    claims.check(took >= std::chrono::milliseconds(500), "after some time only");
    claims.check(isMountPoint(t), "and is still there");
    host.pauses = 0;
    host.on_pause = [&] {
        if (host.pauses == 5) held.reset();
    };
    claims.works(host.umount(t), "one that is given up meanwhile");
    claims.check(!isMountPoint(t), "is gone");
    const auto again = host.umount(t);
    claims.check(!again && again.error().code() == Code::kInvalidArgument, "not mounted");
    claims.check(host.umount(t, 0x100).error().code() == Code::kInvalidArgument, "unknown flags");
    claims.check(host.umount(dir + "/nosuch").error().code() == Code::kInvalidArgument, "missing");
}

void stats(Claims& claims, const std::string& dir) {
    Host host{.containers = dir + "/containers"};
    // A file system that can neither be frozen nor trimmed says so.
    claims.works(host.mount("proc", "proc", dir + "/p"), "proc");
    claims.check(!filesystemOperation(host.path(dir + "/p"), FilesystemAction::kTrim), "trim");
    claims.check(!filesystemOperation(host.path(dir + "/p"), FilesystemAction::kThaw), "thaw");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mounting)

#define ARCA_NAMESPACE_CASE(name, body)                                             \
    BOOST_AUTO_TEST_CASE(name) {                                                    \
        if (!isRoot()) {                                                            \
            BOOST_TEST_MESSAGE("skipped: needs root");                              \
            return;                                                                 \
        }                                                                           \
        TestFolder folder;                                                          \
        BOOST_TEST(inNamespaces([&](Claims& c) { body(c, folder.path()); }) == ""); \
    }
ARCA_NAMESPACE_CASE(all_options_have_their_meaning, options)
ARCA_NAMESPACE_CASE(binds_of_folders_and_files, binds)
ARCA_NAMESPACE_CASE(what_may_be_plugged_in_is_waited_for, retries)
ARCA_NAMESPACE_CASE(umount_tells_the_truth, busy)
ARCA_NAMESPACE_CASE(unsupported_operations_are_errors, stats)

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
