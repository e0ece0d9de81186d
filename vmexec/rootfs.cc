#include "vmexec/rootfs.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/mount_api.h"
#include "base/strings.h"
#include "spec/mount_options.h"

namespace arca::vmexec {

using base::attachMount;
using base::cloneTree;
using base::Code;
using base::Depth;
using base::fail;
using base::failErrno;
using base::mountIdOf;
using base::Result;
using base::setMountAttributes;
using base::UniqueFd;
using spec::parsePropagation;
using spec::PropagationChange;

namespace {

// One line of /proc/self/mountinfo, as far as it matters here.
struct MountLine {
    uint64_t id = 0;
    std::string path;
    std::string type;
};

// Undoes the octal escapes of spaces and the like.
std::string unescape(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto code = text[i] == '\\' && i + 3 < text.size()
                              ? base::parseNumber<unsigned>(text.substr(i + 1, 3), 8)
                              : std::nullopt;
        out += code ? static_cast<char>(*code) : text[i];
        if (code) i += 3;
    }
    return out;
}

Result<std::vector<MountLine>> readMountInfo() {
    ARCA_TRY(const std::string text, base::readFile("/proc/self/mountinfo", size_t{64} << 20U));
    std::vector<MountLine> lines;
    for (const std::string_view line : base::split(text, '\n')) {
        const auto fields = base::split(line, ' ');
        if (fields.size() < 7) continue;
        MountLine mount;
        mount.id = base::parseNumber<uint64_t>(fields[0]).value_or(0);
        mount.path = unescape(fields[4]);
        // Optional fields end with "-"; the type follows.
        for (size_t i = 6; i + 1 < fields.size(); ++i) {
            if (fields[i] == "-") {
                mount.type = fields[i + 1];
                break;
            }
        }
        lines.push_back(std::move(mount));
    }
    return lines;
}

// Makes the mount that `fd` lies in private, so that what is attached to it stays here.
Result<> makeMountOfPrivate(int fd) {
    ARCA_TRY(const uint64_t id, mountIdOf(fd));
    ARCA_TRY(const std::vector<MountLine> lines, readMountInfo());
    for (const MountLine& line : lines) {
        if (line.id != id) continue;
        if (::mount(nullptr, line.path.c_str(), nullptr, MS_PRIVATE, nullptr) != 0)
            return failErrno("make " + line.path + " private");
        return {};
    }
    return fail(Code::kInternal, "the rootfs' mount is not in /proc/self/mountinfo");
}

// Mounting in a detached tree is possible since Linux 6.15.
bool canMountInDetachedTree() {
    utsname name{};
    if (::uname(&name) != 0) return false;
    char* end = nullptr;
    const unsigned long major = std::strtoul(name.release, &end, 10);
    const unsigned long minor = *end == '.' ? std::strtoul(end + 1, nullptr, 10) : 0;
    return major > 6 || (major == 6 && minor >= 15);
}

Result<> attachRoot(int tree_fd, const std::string& path, bool shared) {
    ARCA_TRY(const UniqueFd target, base::openAt(AT_FDCWD, path, O_PATH | O_DIRECTORY));
    if (shared) ARCA_CHECK(makeMountOfPrivate(target.get()));
    return attachMount(tree_fd, target.get());
}

Result<> detachOldRoot(int old_root_fd) {
    if (::fchdir(old_root_fd) != 0) return failErrno("chdir to the old root");
    // Otherwise the unmounting below would reach the host's mounts in a shared tree.
    if (::mount(nullptr, ".", nullptr, MS_SLAVE | MS_REC, nullptr) != 0)
        return failErrno("make the old root a slave");
    if (::umount2(".", MNT_DETACH) != 0) return failErrno("unmount the old root");
    return {};
}

Result<> pivot(int root_fd) {
    ARCA_TRY(const UniqueFd old_root, base::openAt(AT_FDCWD, "/", O_PATH | O_DIRECTORY));
    if (::fchdir(root_fd) != 0) return failErrno("chdir to the rootfs");
    if (::syscall(SYS_pivot_root, ".", ".") != 0) return failErrno("pivot_root");
    ARCA_CHECK(detachOldRoot(old_root.get()));
    if (::chdir("/") != 0) return failErrno("chdir to /");
    return {};
}

// For hosts whose root is an initramfs, where pivot_root is not possible.
Result<> moveRoot(int root_fd, const std::string& path) {
    // The old mounts stay below the new root, out of reach for a path but not for the kernel's
    // check whether a new proc or sysfs would show more than the namespace may see.
    ARCA_TRY(const std::vector<MountLine> lines, readMountInfo());
    for (const MountLine& line : lines) {
        if (line.type != "proc" && line.type != "sysfs") continue;
        if (line.path == path || line.path.starts_with(path + "/")) continue;
        if (::umount2(line.path.c_str(), MNT_DETACH) == 0) continue;
        if (errno == EINVAL || errno == ENOENT) continue;
        if (errno != EPERM) return failErrno("unmount " + line.path);
        if (::mount("tmpfs", line.path.c_str(), "tmpfs", MS_RDONLY, nullptr) != 0)
            return failErrno("hide " + line.path);
    }
    if (::fchdir(root_fd) != 0) return failErrno("chdir to the rootfs");
    if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) return failErrno("move the rootfs to /");
    if (::chroot(".") != 0) return failErrno("chroot");
    if (::chdir("/") != 0) return failErrno("chdir to /");
    return {};
}

Result<> chrootOnly(int root_fd) {
    if (::fchdir(root_fd) != 0) return failErrno("chdir to the rootfs");
    if (::chroot(".") != 0) return failErrno("chroot");
    return {};
}

}  // namespace

Result<UniqueFd> prepareRoot(const spec::Plan& plan, UniqueFd prepared) {
    const std::string path = base::absolutePath(plan.bundle, plan.spec.root->path);
    ARCA_TRY(const PropagationChange wanted, parsePropagation(plan.spec.linux.rootfsPropagation));
    const bool own = plan.spec.newNamespace(spec::NamespaceType::kMount);
    const bool shared = wanted.type == MS_SHARED;
    // A shared root is asked for so that bind mounts of shared directories reach the host: those
    // must stay in their peer groups. Otherwise nothing from here goes back.
    if (own && !shared && ::mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0)
        return failErrno("make / a slave");
    UniqueFd tree = std::move(prepared);
    if (!tree.valid()) {
        auto cloned = cloneTree(AT_FDCWD, path, Depth::kTree);
        if (!cloned) return fail(std::move(cloned).error().withContext("rootfs"));
        tree = std::move(*cloned);
    }
    if (!own || shared)
        ARCA_CHECK(setMountAttributes(tree.get(), {.propagation = MS_PRIVATE}, Depth::kTree));
    if (own || !canMountInDetachedTree()) {
        auto attached = attachRoot(tree.get(), path, own && shared);
        if (!attached) return fail(std::move(attached).error().withContext("rootfs " + path));
    }
    return tree;
}

Result<> makeRootReadOnly(int root_fd) {
    auto done = setMountAttributes(root_fd, {.set = MOUNT_ATTR_RDONLY}, Depth::kTop);
    if (!done) return fail(std::move(done).error().withContext("make the root read-only"));
    return {};
}

Result<> enterRoot(const spec::Plan& plan, int root_fd) {
    if (!plan.spec.newNamespace(spec::NamespaceType::kMount)) {
        ARCA_CHECK(chrootOnly(root_fd));
    } else if (plan.no_pivot) {
        ARCA_CHECK(moveRoot(root_fd, base::absolutePath(plan.bundle, plan.spec.root->path)));
    } else {
        ARCA_CHECK(pivot(root_fd));
    }
    ARCA_TRY(const PropagationChange wanted, parsePropagation(plan.spec.linux.rootfsPropagation));
    if (wanted.type == 0) return {};
    if (plan.spec.newNamespace(spec::NamespaceType::kMount)) {
        const unsigned long rec =
            wanted.depth == Depth::kTree ? static_cast<unsigned long>(MS_REC) : 0;
        if (::mount(nullptr, "/", nullptr, wanted.type | rec, nullptr) != 0)
            return failErrno("set rootfsPropagation");
        return {};
    }
    auto done = setMountAttributes(root_fd, {.propagation = wanted.type}, wanted.depth);
    if (!done) return fail(std::move(done).error().withContext("set rootfsPropagation"));
    return {};
}

}  // namespace arca::vmexec
