#include "vminitd/agent_files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr mode_t kModeBits = 07777;

Result<UniqueFd> openOrCreate(const GuestPath& path, int flags, Missing missing, mode_t mode) {
    // The two steps tell whether it is a new file, whose mode is to be what was asked for. They
    // change places when another process makes or removes the file in between.
    constexpr int kTries = 16;
    for (int i = 0; i < kTries; ++i) {
        auto found = path.open(flags);
        if (found || missing == Missing::kError || found.error().sysErrno() != ENOENT) return found;
        auto made = path.open(flags | O_CREAT | O_EXCL, mode);
        if (made) {
            if (::fchmod(made->get(), mode) != 0) return failErrno("chmod " + path.text());
            return made;
        }
        if (made.error().sysErrno() != EEXIST) return made;
        // O_EXCL does not follow a symlink to nowhere, but its target is what is to be made.
        auto through = path.open(flags | O_CREAT, mode);
        if (through || through.error().sysErrno() != ENOENT) return through;
    }
    return failErrno("open " + path.text(), EAGAIN);
}

}  // namespace

Result<> makeDirectory(const GuestPath& path, bool all, uint32_t perms) {
    const mode_t mode = perms == 0 ? 0755 : static_cast<mode_t>(perms) & kModeBits;
    const std::string what = "mkdir " + path.text();
    const std::string name = path.name();
    if (name.empty() || name == "..") {
        // A root, or what is found by going back: nothing that could be made.
        ARCA_TRY(const UniqueFd there, path.open(O_PATH | O_DIRECTORY));
        return all ? Result<>() : Result<>(failErrno(what, EEXIST));
    }
    const GuestPath parent = path.parent();
    if (all) ARCA_CHECK(parent.makeDirs(0755));
    ARCA_TRY(const UniqueFd dir, parent.open(O_PATH | O_DIRECTORY));
    if (::mkdirat(dir.get(), name.c_str(), mode) != 0) {
        const int why = errno;
        if (all && why == EEXIST && path.open(O_PATH | O_DIRECTORY)) return {};
        return failErrno(what, why);
    }
    // By descriptor, so that the new directory is what gets its mode.
    ARCA_TRY(const UniqueFd made,
             base::openAt(dir.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (::fchmod(made.get(), mode) != 0) return failErrno("chmod " + path.text());
    return {};
}

Result<UniqueFd> openForWriting(const GuestPath& path, Existing existing, Missing missing,
                                mode_t mode) {
    // Non-blocking, so that a FIFO answers at once; what it was is looked at before anything is
    // written or cut off.
    int flags = O_WRONLY | O_NOCTTY | O_NONBLOCK;
    if (existing == Existing::kAppend) flags |= O_APPEND;
    ARCA_TRY(UniqueFd fd, openOrCreate(path, flags, missing, mode & kModeBits));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return failErrno("stat " + path.text());
    const bool device = S_ISCHR(st.st_mode) && !path.confined();
    if (!S_ISREG(st.st_mode) && !device) {
        return fail(Code::kInvalidArgument, "open " + path.text() + ": not a regular file");
    }
    if (existing == Existing::kTruncate && S_ISREG(st.st_mode) && ::ftruncate(fd.get(), 0) != 0) {
        // Files of /proc and /sys have no length to set; each write there is whole.
        if (errno != EINVAL && errno != EPERM) return failErrno("truncate " + path.text());
    }
    if (::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) return failErrno("fcntl");
    return fd;
}

Result<> writeFile(const GuestPath& path, const WriteFileRequest& request) {
    if (request.create_parent_dirs) ARCA_CHECK(path.parent().makeDirs(0755));
    ARCA_TRY(const UniqueFd fd,
             openForWriting(path, request.append ? Existing::kAppend : Existing::kTruncate,
                            request.create_if_missing ? Missing::kCreate : Missing::kError,
                            request.mode == 0 ? 0644 : static_cast<mode_t>(request.mode)));
    auto written = base::writeAll(fd.get(), request.data);
    if (!written) return fail(std::move(written).error().withContext(path.text()));
    return {};
}

Result<struct stat> statFile(const GuestPath& path) {
    ARCA_TRY(const UniqueFd fd, path.open(O_PATH));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return failErrno("stat " + path.text());
    return st;
}

Result<uint64_t> filesystemOperation(const GuestPath& path, FilesystemAction action) {
    const auto found = statFile(path);
    if (!found) {
        return fail(Code::kNotFound, found.error().message(), found.error().sysErrno());
    }
    // Opening a device would be a deed of its own.
    if (!S_ISDIR(found->st_mode) && !S_ISREG(found->st_mode)) {
        return fail(Code::kInvalidArgument, path.text() + ": neither a directory nor a file");
    }
    auto fd = path.open(O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!fd && fd.error().sysErrno() == ELOOP) {
        return fail(Code::kInternal, path.text() + ": path cannot be a symlink");
    }
    if (!fd) return fail(std::move(fd).error());
    switch (action) {
        case FilesystemAction::kFreeze:
            if (::ioctl(fd->get(), FIFREEZE, 0) != 0) return failErrno("freeze " + path.text());
            return 0;
        case FilesystemAction::kThaw:
            if (::ioctl(fd->get(), FITHAW, 0) != 0) return failErrno("thaw " + path.text());
            return 0;
        case FilesystemAction::kTrim:
            break;
    }
    fstrim_range range{};
    range.len = UINT64_MAX;
    if (::ioctl(fd->get(), FITRIM, &range) != 0) return failErrno("trim " + path.text());
    return range.len;
}

}  // namespace arca::vminitd
