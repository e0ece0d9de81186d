#include "vmexec/masked_paths.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/files.h"
#include "base/mount_api.h"
#include "base/strings.h"
#include "vmexec/device_nodes.h"

namespace arca::vmexec {

using base::attachMount;
using base::cloneTree;
using base::Depth;
using base::fail;
using base::failErrno;
using base::makeFilesystem;
using base::Result;
using base::setMountAttributes;
using base::UniqueFd;

namespace {

// Missing paths are no error; so are those that lead through a file.
bool isMissing(const base::Error& error) {
    return error.sysErrno() == ENOENT || error.sysErrno() == ENOTDIR;
}

// What lies over masked paths. Made when first needed; each mask is a copy of the same two mounts.
class Masks {
 public:
    Result<UniqueFd> copyFor(const UniqueFd& target) {
        struct stat st {};
        if (::fstat(target.get(), &st) != 0) return failErrno("stat");
        if (S_ISDIR(st.st_mode)) {
            if (directory_.valid()) return cloneTree(directory_.get(), "", Depth::kTop);
            ARCA_TRY(UniqueFd made,
                     makeFilesystem({.type = "tmpfs",
                                     .source = "tmpfs",
                                     .superblock_flags = MS_RDONLY,
                                     .attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                   MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
                                     .data = {"mode=755"}}));
            directory_ = UniqueFd(::fcntl(made.get(), F_DUPFD_CLOEXEC, 3));
            return made;
        }
        if (!null_.valid()) {
            ARCA_TRY(null_, openRealDevNull());
        }
        return cloneTree(null_.get(), "", Depth::kTop);
    }

 private:
    UniqueFd directory_;
    UniqueFd null_;
};

Result<> maskOne(int root_fd, const std::string& path, Masks& masks) {
    const auto target = base::openInRoot(root_fd, path, O_PATH);
    if (!target) return isMissing(target.error()) ? Result<>{} : fail(target.error());
    ARCA_TRY(const UniqueFd mask, masks.copyFor(*target));
    return attachMount(mask.get(), target->get());
}

Result<> makeOneReadOnly(int root_fd, const std::string& path) {
    const auto target = base::openInRoot(root_fd, path, O_PATH);
    if (!target) return isMissing(target.error()) ? Result<>{} : fail(target.error());
    ARCA_TRY(const UniqueFd tree, cloneTree(target->get(), "", Depth::kTree));
    ARCA_CHECK(attachMount(tree.get(), target->get()));
    return setMountAttributes(tree.get(), {.set = MOUNT_ATTR_RDONLY}, Depth::kTop);
}

}  // namespace

Result<> maskPaths(int root_fd, const std::vector<std::string>& paths) {
    Masks masks;
    for (const std::string& path : paths) {
        auto done = maskOne(root_fd, path, masks);
        if (!done)
            return fail(std::move(done).error().withContext("mask path " + base::printable(path)));
    }
    return {};
}

Result<> makePathsReadOnly(int root_fd, const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
        auto done = makeOneReadOnly(root_fd, path);
        if (!done) {
            return fail(std::move(done).error().withContext("make path read-only " +
                                                            base::printable(path)));
        }
    }
    return {};
}

}  // namespace arca::vmexec
