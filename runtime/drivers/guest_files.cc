#include "runtime/drivers/guest_files.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "base/unique_fd.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::MonitorMessage;
using Way = GuestFiles::Way;

namespace {

constexpr uint64_t kMib = uint64_t{1} << 20U;

// A detached copy of what is at the path, for the monitor.
Result<UniqueFd> cloneTree(const SharedPath& share) {
    const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
                           (share.recursive ? static_cast<unsigned>(AT_RECURSIVE) : 0U);
    UniqueFd tree(
        static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, share.source.c_str(), flags)));
    if (!tree.valid()) return failErrno("open " + base::printable(share.source));
    mount_attr attributes{};
    attributes.propagation = share.follows ? MS_SLAVE : MS_PRIVATE;
    if (share.read_only) attributes.attr_set = MOUNT_ATTR_RDONLY;
    // All below it too: what the guest is to read only must be so on this side of it.
    if (::syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                  sizeof attributes) != 0) {
        return failErrno("set attributes of " + base::printable(share.source));
    }
    return tree;
}

// What a file of this size takes in a tmpfs, its inode and name included.
uint64_t bytesInMemory(const struct stat& st) {
    constexpr uint64_t kPage = 4096;
    constexpr uint64_t kInode = 1024;
    const auto size = S_ISREG(st.st_mode) ? static_cast<uint64_t>(st.st_size) : 0;
    return (size + kPage - 1) / kPage * kPage + kInode;
}

// Adds what is at `name` and below it; stops once there is more than `most`.
void addTree(int dir_fd, const std::string& name, unsigned depth, uint64_t most, uint64_t& bytes) {
    constexpr unsigned kMostDepth = 200;
    struct stat st {};
    if (depth > kMostDepth || ::fstatat(dir_fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return;
    }
    bytes += bytesInMemory(st);
    if (!S_ISDIR(st.st_mode)) return;
    const auto dir = base::openAt(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!dir) return;
    const auto names = base::listDir(dir->get());
    for (const std::string& entry : names.value_or(std::vector<std::string>())) {
        if (bytes > most) return;
        addTree(dir->get(), entry, depth + 1, most, bytes);
    }
}

Way wayOfSource(bool copied) {
    return copied ? Way::kCopy : Way::kPaths;
}

const char* wordOf(Unpacker unpacker) {
    switch (unpacker) {
        case Unpacker::kOurs:
            return proto::kCopyExact;
        case Unpacker::kProtocol:
            return proto::kCopyOrError;
        case Unpacker::kProtocolLosing:
            break;
    }
    return proto::kCopyWithLosses;
}

}  // namespace

GuestFiles guestFilesOf(const std::string& kind, const Settings& settings) {
    GuestFiles files;
    if (kind == "vm") {
        const VmSettings& vm = settings.vm;
        files.binds = vm.rootfs == "copy" ? Way::kCopy : Way::kShare;
        files.rootfs = vm.rootfs_image.empty() ? files.binds : Way::kMount;
        files.copy_mib = vm.copy_mib;
        // The machine's only disk.
        files.device = {"/dev/vda", vm.rootfs_type, {}};
        return files;
    }
    const ConnectSettings& connect = settings.connect;
    files.binds = wayOfSource(connect.copiesBinds());
    files.device = connect.device;
    files.rootfs = connect.device.path.empty() ? wayOfSource(connect.copiesRootfs()) : Way::kMount;
    files.copy_mib = connect.copy_mib;
    return files;
}

Placements placementsOf(const GuestFiles& files, const std::string& container_id,
                        const Settings& settings) {
    const auto placement = [&](Way way) {
        switch (way) {
            case Way::kShare:
                return sharePlacement(container_id);
            case Way::kPaths:
                return mappedPlacement(settings.connect.paths);
            case Way::kCopy:
            case Way::kMount:
                break;
        }
        return copyPlacement(container_id);
    };
    return {placement(files.rootfs), placement(files.binds)};
}

uint32_t copyMemoryMib(const GuestFiles& files, const spec::Spec& spec) {
    // Beyond the limit nothing is copied.
    const uint64_t most = files.copy_mib * kMib;
    uint64_t bytes = 0;
    for (const SharedPath& path : hostPaths(spec)) {
        if (files.wayOf(path) != Way::kCopy) continue;
        // The path itself may be a symlink: what it leads to is copied.
        const auto start = base::openAt(AT_FDCWD, path.source, O_PATH);
        struct stat st {};
        if (!start || ::fstat(start->get(), &st) != 0) continue;
        if (S_ISDIR(st.st_mode)) {
            addTree(start->get(), ".", 0, most, bytes);
        } else {
            bytes += bytesInMemory(st);
        }
    }
    return static_cast<uint32_t>((std::min(bytes, most) * 3 / 2 + kMib - 1) / kMib);
}

Result<> sendTrees(Attachment& attachment, const GuestFiles& files,
                   const std::vector<SharedPath>& paths) {
    for (const SharedPath& path : paths) {
        const Way way = files.wayOf(path);
        if (way != Way::kShare && way != Way::kCopy) continue;
        ARCA_TRY(const UniqueFd tree, cloneTree(path));
        ARCA_CHECK(attachment.send(MonitorMessage::kShare, path.name, {tree.get()}));
    }
    return {};
}

Result<> copyTrees(Attachment& attachment, const GuestFiles& files,
                   const std::vector<SharedPath>& paths, Unpacker unpacker) {
    // The monitor ends what does not move.
    constexpr std::chrono::hours kLimit{24};
    uint64_t left = files.copy_mib * kMib;
    for (const SharedPath& path : paths) {
        if (files.wayOf(path) != Way::kCopy) continue;
        const std::string what = "copy " + base::printable(path.source) + " into the guest";
        const nlohmann::json order{{"name", path.name},
                                   {"to", copyFolder(path)},
                                   {"losses", wordOf(unpacker)},
                                   {"bytes", left}};
        ARCA_CHECK(attachment.send(MonitorMessage::kCopy, order.dump()));
        auto copied = attachment.await(MonitorMessage::kCopied, kLimit);
        if (!copied) return fail(std::move(copied).error().withContext(what));
        const auto bytes = base::parseNumber<uint64_t>(*copied);
        if (!bytes || *bytes > left) return fail(Code::kInternal, what + ": an odd answer");
        left -= *bytes;
    }
    return {};
}

}  // namespace arca::runtime
