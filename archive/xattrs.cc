#include "archive/xattrs.h"

#include <archive.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/strings.h"

namespace arca::archive {

using base::failErrno;
using base::Result;

namespace {

// The kernel's own limits.
constexpr size_t kMaxListBytes = 65536;
constexpr size_t kMaxValueBytes = 65536;

bool hasNone(int sys_errno) {
    return sys_errno == ENOTSUP || sys_errno == ENODATA || sys_errno == ENOENT;
}

// The names, each with a NUL behind it.
Result<std::vector<char>> namesOf(const std::string& path) {
    std::vector<char> names(kMaxListBytes);
    const ssize_t n = ::listxattr(path.c_str(), names.data(), names.size());
    if (n < 0 && !hasNone(errno)) return failErrno("list extended attributes");
    names.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return names;
}

}  // namespace

Result<bool> hasAttributes(int fd) {
    const std::string path = base::fdPath(fd);
    const ssize_t n = ::listxattr(path.c_str(), nullptr, 0);
    if (n < 0 && !hasNone(errno)) return failErrno("list extended attributes");
    return n > 0;
}

Result<> readAttributes(int fd, struct archive_entry* entry) {
    // Most files have none: then there is nothing to make room for.
    ARCA_TRY(const bool any, hasAttributes(fd));
    if (!any) return {};
    const std::string path = base::fdPath(fd);
    ARCA_TRY(const std::vector<char> names, namesOf(path));
    std::vector<char> value(kMaxValueBytes);
    for (const char* name = names.data(); name < names.data() + names.size();
         name += std::strlen(name) + 1) {
        const ssize_t n = ::getxattr(path.c_str(), name, value.data(), value.size());
        if (n < 0 && hasNone(errno)) continue;
        if (n < 0)
            return failErrno(std::string("read extended attribute ") + base::printable(name));
        ::archive_entry_xattr_add_entry(entry, name, value.data(), static_cast<size_t>(n));
    }
    return {};
}

Result<uint64_t> writeAttributes(int fd, struct archive_entry* entry) {
    const std::string path = base::fdPath(fd);
    uint64_t lost = 0;
    (void)::archive_entry_xattr_reset(entry);
    const char* name = nullptr;
    const void* value = nullptr;
    size_t size = 0;
    while (::archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
        if (name == nullptr) continue;
        if (::setxattr(path.c_str(), name, value, size, 0) == 0) continue;
        // tmpfs has user.* since Linux 6.6 only.
        if (errno != ENOTSUP) {
            return failErrno(std::string("set extended attribute ") + base::printable(name));
        }
        ++lost;
    }
    return lost;
}

}  // namespace arca::archive
