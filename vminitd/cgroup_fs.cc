#include "vminitd/cgroup_fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/files.h"
#include "base/process.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::failErrno;
using base::Result;
using base::UniqueFd;

Result<bool> RealCgroupFs::makeDir(const std::string& path) {
    if (::mkdir(path.c_str(), 0755) == 0) return true;
    if (errno == EEXIST) return false;
    return failErrno("mkdir " + path);
}

Result<bool> RealCgroupFs::removeDir(const std::string& path) {
    if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return true;
    // ENOTEMPTY never comes from cgroupfs, but costs nothing to treat alike.
    if (errno == EBUSY || errno == EAGAIN || errno == ENOTEMPTY) return false;
    return failErrno("rmdir " + path);
}

Result<std::string> RealCgroupFs::read(const std::string& path) {
    ARCA_TRY(std::string text, base::readFile(path));
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

Result<> RealCgroupFs::write(const std::string& path, std::string_view value) {
    return base::writeControlFile(AT_FDCWD, path, value);
}

Result<> RealCgroupFs::writeEach(const std::string& path, const std::vector<std::string>& values) {
    ARCA_TRY(const UniqueFd fd, base::openAt(AT_FDCWD, path, O_WRONLY));
    for (const std::string& value : values) {
        ssize_t n = 0;
        do {
            n = ::write(fd.get(), value.data(), value.size());
        } while (n < 0 && errno == EINTR);
        if (n < 0) return failErrno("write \"" + base::printable(value) + "\" to " + path);
    }
    return {};
}

bool RealCgroupFs::exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

Result<std::vector<std::string>> RealCgroupFs::childDirs(const std::string& path) {
    struct Closer {
        void operator()(DIR* dir) const noexcept { (void)::closedir(dir); }
    };
    // The link count tells whether there is any subdirectory; most of the time there is none.
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) return failErrno("stat " + path);
    std::vector<std::string> names;
    if (st.st_nlink <= 2) return names;
    ARCA_TRY(UniqueFd fd, base::openAt(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    const std::unique_ptr<DIR, Closer> dir(::fdopendir(fd.get()));
    if (!dir) return failErrno("open directory " + path);
    (void)fd.release();
    while (const dirent* entry = ::readdir(dir.get())) {
        const std::string_view name = entry->d_name;
        if (entry->d_type == DT_DIR && name != "." && name != "..") names.emplace_back(name);
    }
    return names;
}

Result<> RealCgroupFs::setOwner(const std::string& path, uid_t uid) {
    if (::lchown(path.c_str(), uid, static_cast<gid_t>(-1)) != 0) return failErrno("chown " + path);
    return {};
}

Result<> RealCgroupFs::signal(pid_t pid, int signal_number) {
    // 0 stands for a process of another pid namespace; it and the agent itself are never meant.
    if (pid <= 0 || pid == ::getpid()) return {};
    auto pidfd = base::openPidfd(pid);
    if (!pidfd) {
        if (pidfd.error().code() == base::Code::kNotFound) return {};
        return base::fail(std::move(pidfd).error());
    }
    auto sent = base::sendSignal(pidfd->get(), signal_number);
    if (!sent && sent.error().code() == base::Code::kNotFound) return {};
    return sent;
}

}  // namespace arca::vminitd
