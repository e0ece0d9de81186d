#include "base/mount_api.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/files.h"
#include "base/strings.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

namespace arca::base {

namespace {

constexpr size_t kMaxFsconfigValue = 255;  // fs/fsopen.c: strndup_user(value, 256)

struct FlagPair {
    uint64_t attribute;
    unsigned long flag;
};
constexpr std::array kFlagPairs = {
    FlagPair{MOUNT_ATTR_RDONLY, MS_RDONLY},
    FlagPair{MOUNT_ATTR_NOSUID, MS_NOSUID},
    FlagPair{MOUNT_ATTR_NODEV, MS_NODEV},
    FlagPair{MOUNT_ATTR_NOEXEC, MS_NOEXEC},
    FlagPair{MOUNT_ATTR_NODIRATIME, MS_NODIRATIME},
    FlagPair{MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW},
};

// The flags that the mount has now, as MOUNT_ATTR_*. statvfs has the same bits for what it knows.
Result<uint64_t> currentAttributes(int mount_fd) {
    struct statvfs st {};
    if (::fstatvfs(mount_fd, &st) != 0) return failErrno("read mount flags");
    uint64_t found = 0;
    if ((st.f_flag & ST_RDONLY) != 0) found |= MOUNT_ATTR_RDONLY;
    if ((st.f_flag & ST_NOSUID) != 0) found |= MOUNT_ATTR_NOSUID;
    if ((st.f_flag & ST_NODEV) != 0) found |= MOUNT_ATTR_NODEV;
    if ((st.f_flag & ST_NOEXEC) != 0) found |= MOUNT_ATTR_NOEXEC;
    if ((st.f_flag & ST_NODIRATIME) != 0) found |= MOUNT_ATTR_NODIRATIME;
    if ((st.f_flag & ST_NOATIME) != 0) {
        found |= MOUNT_ATTR_NOATIME;
    } else if ((st.f_flag & ST_RELATIME) == 0) {
        found |= MOUNT_ATTR_STRICTATIME;
    }
    return found;
}

Result<> setAttributesClassic(int mount_fd, const MountAttributes& attributes, Depth depth) {
    const std::string path = fdPath(mount_fd);
    if (attributes.propagation != 0) {
        const unsigned long rec = depth == Depth::kTree ? static_cast<unsigned long>(MS_REC) : 0;
        if (::mount(nullptr, path.c_str(), nullptr, attributes.propagation | rec, nullptr) != 0)
            return failErrno("change mount propagation");
    }
    if (attributes.set == 0 && attributes.clear == 0) return {};
    if (depth == Depth::kTree || (attributes.set & MOUNT_ATTR_IDMAP) != 0) {
        return fail(Code::kUnsupported,
                    "change mount flags of a tree: this kernel lacks mount_setattr", ENOSYS);
    }
    ARCA_TRY(const uint64_t now, currentAttributes(mount_fd));
    const uint64_t wanted = (now & ~attributes.clear) | attributes.set;
    const unsigned long flags = MS_REMOUNT | MS_BIND | classicFlags(wanted);
    if (::mount(nullptr, path.c_str(), nullptr, flags, nullptr) != 0)
        return failErrno("change mount flags");
    return {};
}

// What the file system said about its parameters, e.g. "tmpfs: Unknown parameter 'x'".
std::string readFsLog(int fs_fd) {
    std::string text;
    std::array<char, 512> line{};
    ssize_t n = 0;
    while ((n = ::read(fs_fd, line.data(), line.size())) > 0) {
        std::string_view message(line.data(), static_cast<size_t>(n));
        if (message.size() > 2 && message[1] == ' ') message.remove_prefix(2);  // "e ", "w ", "i "
        if (!text.empty()) text += "; ";
        text += printable(trim(message));
    }
    return text;
}

tl::unexpected<Error> failFs(const std::string& what, int fs_fd) {
    const int why = errno;
    const std::string log = readFsLog(fs_fd);
    return failErrno(log.empty() ? what : what + " (" + log + ")", why);
}

Result<> setParameters(int fs_fd, const FilesystemRequest& request) {
    const auto setFlag = [&](const char* name) {
        return ::fsconfig(fs_fd, FSCONFIG_SET_FLAG, name, nullptr, 0) == 0;
    };
    if (!request.source.empty() &&
        ::fsconfig(fs_fd, FSCONFIG_SET_STRING, "source", request.source.c_str(), 0) != 0)
        return failFs("set source", fs_fd);
    constexpr std::array<std::pair<unsigned long, const char*>, 5> kNames = {
        {{MS_RDONLY, "ro"},
         {MS_SYNCHRONOUS, "sync"},
         {MS_DIRSYNC, "dirsync"},
         {MS_MANDLOCK, "mand"},
         {MS_LAZYTIME, "lazytime"}}};
    for (const auto& [flag, name] : kNames) {
        if ((request.superblock_flags & flag) != 0 && !setFlag(name))
            return failFs(std::string("set ") + name, fs_fd);
    }
    for (const std::string& item : request.data) {
        if (item.empty()) continue;
        const size_t equals = item.find('=');
        const bool done =
            equals == std::string::npos
                ? setFlag(item.c_str())
                : ::fsconfig(fs_fd, FSCONFIG_SET_STRING, item.substr(0, equals).c_str(),
                             item.c_str() + equals + 1, 0) == 0;
        if (!done) return failFs("option \"" + printable(item) + "\"", fs_fd);
    }
    return {};
}

}  // namespace

unsigned long classicFlags(uint64_t attributes) {
    unsigned long flags = 0;
    for (const FlagPair& pair : kFlagPairs) {
        if ((attributes & pair.attribute) != 0) flags |= pair.flag;
    }
    switch (attributes & MOUNT_ATTR__ATIME) {
        case MOUNT_ATTR_NOATIME:
            return flags | MS_NOATIME;
        case MOUNT_ATTR_STRICTATIME:
            return flags | MS_STRICTATIME;
        default:
            return flags | MS_RELATIME;
    }
}

Result<UniqueFd> cloneTree(int dir_fd, const std::string& path, Depth depth) {
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    if (path.empty()) flags |= AT_EMPTY_PATH;
    if (depth == Depth::kTree) flags |= AT_RECURSIVE;
    UniqueFd fd(::open_tree(dir_fd, path.c_str(), flags));
    if (!fd.valid()) return failErrno(path.empty() ? "copy mount" : "open " + path);
    return fd;
}

Result<> setMountAttributes(int mount_fd, const MountAttributes& attributes, Depth depth) {
    if (attributes.empty()) return {};
    mount_attr attr{};
    attr.attr_set = attributes.set;
    attr.attr_clr = attributes.clear;
    attr.propagation = attributes.propagation;
    attr.userns_fd = static_cast<uint64_t>(attributes.userns_fd < 0 ? 0 : attributes.userns_fd);
    const unsigned flags = AT_EMPTY_PATH | (depth == Depth::kTree ? AT_RECURSIVE : 0U);
    if (::mount_setattr(mount_fd, "", flags, &attr, sizeof attr) == 0) return {};
    if (errno == ENOSYS) return setAttributesClassic(mount_fd, attributes, depth);
    if ((attributes.set & MOUNT_ATTR_IDMAP) != 0) return failErrno("set id mapping of the mount");
    return failErrno("set mount attributes");
}

Result<> attachMount(int mount_fd, int target_fd) {
    if (::move_mount(mount_fd, "", target_fd, "",
                     MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0)
        return {};
    const int why = errno;
    struct stat mount {};
    struct stat target {};
    // move_mount(2) says EINVAL where mount(2), and whoever reads the text, says ENOTDIR.
    const bool mismatch = ::fstat(mount_fd, &mount) == 0 && ::fstat(target_fd, &target) == 0 &&
                          S_ISDIR(mount.st_mode) != S_ISDIR(target.st_mode);
    return failErrno("attach", why == EINVAL && mismatch ? ENOTDIR : why);
}

Result<UniqueFd> makeFilesystem(const FilesystemRequest& request) {
    bool fits = (request.superblock_flags & MS_I_VERSION) == 0 &&
                request.source.size() <= kMaxFsconfigValue;
    for (const std::string& item : request.data) {
        // What a comma inside means (quoted, escaped, several options) only mount(2) knows.
        fits = fits && item.size() <= kMaxFsconfigValue && item.find(',') == std::string::npos;
    }
    if (!fits) return fail(Code::kUnsupported, "needs mount(2)");
    UniqueFd fs(::fsopen(request.type.c_str(), FSOPEN_CLOEXEC));
    if (!fs.valid()) {
        if (errno == ENOSYS) return fail(Code::kUnsupported, "needs mount(2)");
        if (errno == ENODEV)
            return failErrno("file system type \"" + printable(request.type) + "\"", ENODEV);
        return failErrno("fsopen");
    }
    ARCA_CHECK(setParameters(fs.get(), request));
    if (::fsconfig(fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
        return failFs("create", fs.get());
    UniqueFd mount(::fsmount(fs.get(), FSMOUNT_CLOEXEC,
                             static_cast<unsigned>(request.attributes & ~MOUNT_ATTR_NOSYMFOLLOW)));
    if (!mount.valid()) return failFs("make mount", fs.get());
    // fsmount(2) takes nosymfollow since 5.14; as an attribute it works wherever it exists.
    if ((request.attributes & MOUNT_ATTR_NOSYMFOLLOW) != 0)
        ARCA_CHECK(setMountAttributes(mount.get(), {.set = MOUNT_ATTR_NOSYMFOLLOW}, Depth::kTop));
    return mount;
}

Result<UniqueFd> mountClassic(const FilesystemRequest& request, int target_fd) {
    const std::string path = fdPath(target_fd);
    const std::string data = join(request.data, ",");
    const unsigned long flags = request.superblock_flags | classicFlags(request.attributes);
    ARCA_TRY(const uint64_t before, mountIdOf(target_fd));
    if (::mount(request.source.c_str(), path.c_str(), request.type.c_str(), flags,
                data.empty() ? nullptr : data.c_str()) != 0)
        return failErrno("mount");
    // A lookup that ends in a magic link does not step onto what is mounted there, one that ends in
    // "." does not either; ".." and back would leave the descriptor. A copy of the target's own
    // mount is of no use. open_tree without a clone follows mounts only for real names, so the
    // mount is found through its parent by name.
    std::array<char, 4096> name{};
    const ssize_t n = ::readlink(path.c_str(), name.data(), name.size() - 1);
    if (n < 0) return failErrno("readlink");
    ARCA_TRY(UniqueFd mount, openAt(AT_FDCWD, std::string(name.data(), static_cast<size_t>(n)),
                                    O_PATH | O_NOFOLLOW));
    ARCA_TRY(const uint64_t after, mountIdOf(mount.get()));
    if (after == before) return fail(Code::kSystem, "mount: the target was moved meanwhile");
    return mount;
}

Result<uint64_t> mountIdOf(int fd) {
    struct statx st {};
    if (::statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MNT_ID, &st) != 0)
        return failErrno("statx");
    return st.stx_mnt_id;
}

}  // namespace arca::base
