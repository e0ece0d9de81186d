#include "runtime/pid_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/files.h"

namespace arca::runtime {

using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

Result<> writePidFile(const std::string& path, pid_t pid) {
    if (path.empty()) return {};
    const size_t slash = path.rfind('/');
    const bool has_dir = slash != std::string::npos;
    const std::string name = has_dir ? path.substr(slash + 1) : path;
    const std::string temp = "." + name;
    auto dir =
        base::openAt(AT_FDCWD, has_dir ? path.substr(0, slash + 1) : ".", O_PATH | O_DIRECTORY);
    if (!dir) return fail(std::move(dir).error().withContext("pid-file"));
    if (::unlinkat(dir->get(), temp.c_str(), 0) != 0 && errno != ENOENT) {
        return failErrno("pid-file: unlink " + temp);
    }
    auto file = base::openAt(dir->get(), temp, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file) return fail(std::move(file).error().withContext("pid-file"));
    auto written = base::writeAll(file->get(), std::to_string(pid));
    if (written && ::renameat(dir->get(), temp.c_str(), dir->get(), name.c_str()) != 0) {
        written = failErrno("rename to " + path);
    }
    if (written) return {};
    (void)::unlinkat(dir->get(), temp.c_str(), 0);
    return fail(std::move(written).error().withContext("pid-file"));
}

}  // namespace arca::runtime
