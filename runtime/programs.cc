#include "runtime/programs.h"

#include <fcntl.h>
#include <unistd.h>

#include <vector>

#include "base/files.h"
#include "base/strings.h"
#include "runtime/context.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

namespace {

Result<std::string> ownFolder() {
    char buffer[4096];
    const ssize_t n = ::readlink("/proc/self/exe", buffer, sizeof buffer);
    if (n < 0) return base::failErrno("readlink /proc/self/exe");
    const std::string self(buffer, static_cast<size_t>(n));
    return self.substr(0, self.rfind('/'));
}

}  // namespace

Result<Program> findProgram(const std::string& name) {
    ARCA_TRY(const std::string dir, ownFolder());
    std::vector<std::string> places{dir, dir + "/../libexec/arca-runtime"};
    const std::string from_environment = environmentValue("ARCA_LIBEXEC");
    if (!from_environment.empty()) places.push_back(from_environment);
    for (const std::string& place : places) {
        const std::string path = place + "/" + name;
        auto fd = base::openAt(AT_FDCWD, path, O_PATH);
        if (fd) return Program{path, std::move(*fd)};
        if (fd.error().sysErrno() != ENOENT && fd.error().sysErrno() != ENOTDIR) {
            return fail(std::move(fd).error());
        }
    }
    return fail(Code::kNotFound, "program " + name + " is neither in " + dir +
                                     " nor in ../libexec/arca-runtime nor in $ARCA_LIBEXEC");
}

Result<std::string> findGuestFile(const std::string& name) {
    ARCA_TRY(const std::string dir, ownFolder());
    std::vector<std::string> places{dir + "/../guest", dir + "/../libexec/arca-runtime/guest"};
    const std::string from_environment = environmentValue("ARCA_LIBEXEC");
    if (!from_environment.empty()) places.push_back(from_environment + "/guest");
    for (const std::string& place : places) {
        std::string path = base::cleanPath(place + "/" + name);
        if (::access(path.c_str(), R_OK) == 0) return path;
    }
    return fail(Code::kNotFound, "the guest's " + name + " is neither in " +
                                     base::cleanPath(places.front()) +
                                     " nor in ../libexec/arca-runtime/guest nor in "
                                     "$ARCA_LIBEXEC/guest; the configuration can name one");
}

}  // namespace arca::runtime
