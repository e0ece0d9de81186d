#include "base/guarded_program.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"

namespace arca::base {
namespace {

// Invalid where that may not be made.
UniqueFd readOnlyMount(const UniqueFd& file) {
    UniqueFd mount(static_cast<int>(::syscall(
        SYS_open_tree, file.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)));
    if (!mount.valid()) return mount;
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    if (::syscall(SYS_mount_setattr, mount.get(), "", AT_EMPTY_PATH, &attributes,
                  sizeof attributes) != 0) {
        mount.reset();
    }
    return mount;
}

Result<UniqueFd> sealedCopy(const std::string& path) {
    ARCA_TRY(UniqueFd source, openAt(AT_FDCWD, path, O_RDONLY));
    struct stat st {};
    if (::fstat(source.get(), &st) != 0) return failErrno("stat " + path);
    UniqueFd copy(::memfd_create("vmexec", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!copy.valid()) return failErrno("memfd_create");
    off_t done = 0;
    while (done < st.st_size) {
        const auto left = static_cast<size_t>(st.st_size - done);
        const ssize_t n = ::sendfile(copy.get(), source.get(), &done, left);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("copy " + path);
        if (n == 0) return fail(Code::kSystem, "copy " + path + ": it became shorter");
    }
    if (::fcntl(copy.get(), F_ADD_SEALS,
                F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
        return failErrno("seal the copy of " + path);
    }
    // A file that somebody holds open for writing cannot be executed.
    return openAt(AT_FDCWD, fdPath(copy.get()), O_RDONLY);
}

}  // namespace

Result<UniqueFd> guardedProgram(const UniqueFd& file, const std::string& path) {
    UniqueFd mount = readOnlyMount(file);
    if (mount.valid()) return mount;
    return sealedCopy(path);
}

}  // namespace arca::base
