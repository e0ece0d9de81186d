#include "vminitd/agent_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"
#include "base/unique_fd.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr mode_t kModeBits = 07777;

}  // namespace

Result<> Environment::set(const std::string& key, const std::string& value) {
    if (key.empty() || key.find('=') != std::string::npos || key.find('\0') != std::string::npos) {
        return fail(Code::kInvalidArgument, "malformed variable name");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    values_[key] = value;
    return {};
}

std::optional<std::string> Environment::get(const std::string& key) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return std::nullopt;
    return found->second;
}

std::vector<std::string> Environment::all() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> out;
    for (const auto& [key, value] : values_) out.push_back(key + "=" + value);
    return out;
}

Result<> makeDirectory(const std::string& path, bool all, uint32_t perms) {
    const mode_t mode = perms == 0 ? 0755 : static_cast<mode_t>(perms) & kModeBits;
    if (all) {
        const size_t slash = path.find_last_of('/');
        if (slash != std::string::npos && slash > 0) {
            ARCA_CHECK(base::makeDirs(path.substr(0, slash), 0755));
        }
    }
    if (::mkdir(path.c_str(), mode) != 0) {
        struct stat st {};
        const int why = errno;
        if (all && why == EEXIST && ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
            return {};
        }
        return failErrno("mkdir " + path, why);
    }
    // By descriptor, so that the new directory is what gets its mode.
    ARCA_TRY(const UniqueFd fd, base::openAt(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (::fchmod(fd.get(), mode) != 0) return failErrno("chmod " + path);
    return {};
}

Result<> writeFile(const WriteFileRequest& request) {
    if (request.create_parent_dirs) {
        const size_t slash = request.path.find_last_of('/');
        if (slash != std::string::npos && slash > 0) {
            ARCA_CHECK(base::makeDirs(request.path.substr(0, slash), 0755));
        }
    }
    int flags = O_WRONLY | O_NOCTTY;
    flags |= request.append ? O_APPEND : O_TRUNC;
    if (request.create_if_missing) flags |= O_CREAT;
    const mode_t mode = request.mode == 0 ? 0644 : static_cast<mode_t>(request.mode) & kModeBits;
    ARCA_TRY(const UniqueFd fd, base::openAt(AT_FDCWD, request.path, flags, mode));
    auto written = base::writeAll(fd.get(), request.data);
    if (!written) return fail(std::move(written).error().withContext(request.path));
    return {};
}

Result<struct stat> statFile(const std::string& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return failErrno("stat " + path);
    return st;
}

}  // namespace arca::vminitd
