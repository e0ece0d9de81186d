#include "base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

#include "base/strings.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2U)
#endif

namespace arca::base {
namespace {

constexpr int kOpenat2Tries = 128;  // EAGAIN means "something was renamed meanwhile"; it passes

struct DirCloser {
    void operator()(DIR* dir) const noexcept { (void)::closedir(dir); }
};
using DirPtr = std::unique_ptr<DIR, DirCloser>;

Result<DirPtr> openDirStream(int dir_fd, const std::string& path) {
    ARCA_TRY(UniqueFd fd, openAt(dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    DirPtr dir(::fdopendir(fd.get()));
    if (!dir) return failErrno("open directory " + path);
    (void)fd.release();  // owned by the stream now
    return dir;
}

}  // namespace

Result<UniqueFd> openAt(int dir_fd, const std::string& path, int flags, mode_t mode) {
    UniqueFd fd(::openat(dir_fd, path.c_str(), flags | O_CLOEXEC, mode));
    if (!fd.valid()) return failErrno("open " + path);
    return fd;
}

Result<UniqueFd> openInRoot(int root_fd, const std::string& path, int flags, mode_t mode) {
    open_how how{};
    how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
    how.mode = mode;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    for (int i = 0; i < kOpenat2Tries; ++i) {
        UniqueFd fd(
            static_cast<int>(::syscall(SYS_openat2, root_fd, path.c_str(), &how, sizeof how)));
        if (fd.valid()) return fd;
        if (errno != EAGAIN && errno != EINTR) break;
    }
    return failErrno("open " + path + " in the container's root");
}

namespace {

constexpr int kMaxSymlinks = 40;  // as the kernel

// The directories from the root to where a walk stands, so that ".." goes back to the one it came
// through.
class RootWalk {
 public:
    RootWalk(int root_fd, mode_t mode) : root_fd_(root_fd), mode_(mode) {}

    Result<PathInRoot> to(const std::string& path) {
        pushParts(path);
        while (!pending_.empty()) {
            const std::string part = std::move(pending_.back());
            pending_.pop_back();
            if (part == "..") {
                if (!dirs_.empty()) dirs_.pop_back();
                continue;
            }
            ARCA_TRY(std::optional<PathInRoot> end, step(part));
            if (end) return std::move(*end);
        }
        // It ended on ".." or on nothing: a directory that is held already.
        PathInRoot end;
        ARCA_TRY(end.parent, openAt(top(), ".", O_PATH | O_DIRECTORY));
        ARCA_TRY(end.fd, openAt(top(), ".", O_PATH | O_DIRECTORY));
        return end;
    }

 private:
    [[nodiscard]] int top() const { return dirs_.empty() ? root_fd_ : dirs_.back().get(); }

    void pushParts(std::string_view path) {
        const auto parts = split(path, '/');
        for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
            if (!part->empty() && *part != ".") pending_.emplace_back(*part);
        }
    }

    // One part; a value when it was the last one.
    Result<std::optional<PathInRoot>> step(const std::string& part) {
        auto found = openAt(top(), part, O_PATH | O_NOFOLLOW);
        if (!found && found.error().sysErrno() == ENOENT) {
            if (pending_.empty()) return endAt(part, UniqueFd());
            if (::mkdirat(top(), part.c_str(), mode_) != 0 && errno != EEXIST) {
                return failErrno("mkdir " + part + " in the container's root");
            }
            found = openAt(top(), part, O_PATH | O_NOFOLLOW);
        }
        if (!found) return fail(std::move(found).error());
        struct stat st {};
        if (::fstat(found->get(), &st) != 0) return failErrno("stat " + part);
        if (S_ISLNK(st.st_mode)) {
            ARCA_CHECK(follow(found->get(), part));
            return std::optional<PathInRoot>();
        }
        if (pending_.empty()) return endAt(part, std::move(*found));
        if (!S_ISDIR(st.st_mode))
            return failErrno("open " + part + " in the container's root", ENOTDIR);
        dirs_.push_back(std::move(*found));
        return std::optional<PathInRoot>();
    }

    Result<> follow(int link_fd, const std::string& part) {
        if (++symlinks_ > kMaxSymlinks)
            return failErrno("open " + part + " in the container's root", ELOOP);
        std::string target(4096, '\0');
        const ssize_t n = ::readlinkat(link_fd, "", target.data(), target.size());
        if (n < 0) return failErrno("readlink " + part);
        target.resize(static_cast<size_t>(n));
        if (!target.empty() && target.front() == '/') dirs_.clear();
        pushParts(target);
        return {};
    }

    Result<std::optional<PathInRoot>> endAt(const std::string& name, UniqueFd fd) {
        PathInRoot end;
        ARCA_TRY(end.parent, openAt(top(), ".", O_PATH | O_DIRECTORY));
        end.name = name;
        end.fd = std::move(fd);
        return std::optional<PathInRoot>(std::move(end));
    }

    int root_fd_;
    mode_t mode_;
    int symlinks_ = 0;
    std::vector<UniqueFd> dirs_;
    std::vector<std::string> pending_;  // the next part is the last element
};

}  // namespace

Result<PathInRoot> resolveInRoot(int root_fd, const std::string& path,
                                 mode_t missing_parents_mode) {
    return RootWalk(root_fd, missing_parents_mode).to(path);
}

Result<UniqueFd> makeDirsInRoot(int root_fd, const std::string& path, mode_t mode) {
    // Fast path: it is all there.
    auto whole = openInRoot(root_fd, path, O_PATH | O_DIRECTORY);
    if (whole || whole.error().sysErrno() != ENOENT) return whole;
    ARCA_TRY(PathInRoot end, resolveInRoot(root_fd, path, mode));
    if (!end.fd.valid()) {
        if (::mkdirat(end.parent.get(), end.name.c_str(), mode) != 0 && errno != EEXIST) {
            return failErrno("mkdir " + path + " in the container's root");
        }
        ARCA_TRY(end.fd, openAt(end.parent.get(), end.name, O_PATH | O_NOFOLLOW));
    }
    struct stat st {};
    if (::fstat(end.fd.get(), &st) != 0) return failErrno("stat " + path);
    if (!S_ISDIR(st.st_mode))
        return failErrno("mkdir " + path + " in the container's root", ENOTDIR);
    return std::move(end.fd);
}

Result<std::string> readAll(int fd, size_t limit_bytes) {
    std::string out;
    constexpr size_t kChunk = 16384;
    while (true) {
        const size_t used = out.size();
        out.resize(used + kChunk);
        const ssize_t n = ::read(fd, out.data() + used, kChunk);
        if (n < 0 && errno == EINTR) {
            out.resize(used);
            continue;
        }
        if (n < 0) return failErrno("read");
        out.resize(used + static_cast<size_t>(n));
        if (n == 0) return out;
        if (out.size() > limit_bytes) {
            return fail(Code::kInvalidArgument,
                        "larger than the limit of " + std::to_string(limit_bytes) + " bytes");
        }
    }
}

Result<std::string> readFile(const std::string& path, size_t limit_bytes, int dir_fd) {
    ARCA_TRY(UniqueFd fd, openAt(dir_fd, path, O_RDONLY));
    auto data = readAll(fd.get(), limit_bytes);
    if (!data) return fail(std::move(data).error().withContext(path));
    return data;
}

Result<> writeAll(int fd, std::string_view data) {
    while (!data.empty()) {
        const ssize_t n = ::write(fd, data.data(), data.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("write");
        data.remove_prefix(static_cast<size_t>(n));
    }
    return {};
}

Result<> writeControlFile(int dir_fd, const std::string& path, std::string_view data) {
    ARCA_TRY(UniqueFd fd, openAt(dir_fd, path, O_WRONLY));
    ssize_t n = 0;
    do {
        n = ::write(fd.get(), data.data(), data.size());
    } while (n < 0 && errno == EINTR);
    const std::string what = "write \"" + printable(data.substr(0, 80)) + "\" to " + path;
    if (n < 0) return failErrno(what);
    if (static_cast<size_t>(n) != data.size()) return fail(Code::kSystem, what + ": short write");
    return {};
}

Result<> replaceFile(int dir_fd, const std::string& name, std::string_view data, mode_t mode) {
    const std::string temp = "." + name + ".new";
    if (::unlinkat(dir_fd, temp.c_str(), 0) != 0 && errno != ENOENT)
        return failErrno("unlink " + temp);
    {
        ARCA_TRY(UniqueFd fd, openAt(dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL, mode));
        auto written = writeAll(fd.get(), data);
        if (written && ::fsync(fd.get()) != 0) written = failErrno("fsync");
        if (!written) {
            (void)::unlinkat(dir_fd, temp.c_str(), 0);
            return fail(std::move(written).error().withContext(name));
        }
    }
    if (::renameat(dir_fd, temp.c_str(), dir_fd, name.c_str()) != 0) {
        auto error = failErrno("rename " + temp + " to " + name);
        (void)::unlinkat(dir_fd, temp.c_str(), 0);
        return error;
    }
    return {};
}

Result<> makeDirs(const std::string& path, mode_t mode) {
    const std::string clean = cleanPath(path);
    size_t at = 0;
    while (at != std::string::npos) {
        at = clean.find('/', at + 1);
        const std::string prefix = clean.substr(0, at);
        if (::mkdir(prefix.c_str(), mode) != 0 && errno != EEXIST) {
            const int why = errno;
            struct stat st {};
            // A read-only or guarded parent that exists is no obstacle.
            if (::stat(prefix.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) continue;
            return failErrno("mkdir " + prefix, why);
        }
    }
    struct stat st {};
    if (::stat(clean.c_str(), &st) != 0) return failErrno("stat " + clean);
    if (!S_ISDIR(st.st_mode)) return failErrno("mkdir " + clean, ENOTDIR);
    return {};
}

namespace {

// Which mount something is in. Without STATX_MNT_ID (before Linux 5.8) the file system has to do.
struct Mount {
    uint64_t id = 0;
    uint32_t device_major = 0;
    uint32_t device_minor = 0;
    bool operator==(const Mount&) const = default;
};

Result<struct statx> statxOf(int dir_fd, const std::string& name, int flags) {
    struct statx st {};
    if (::statx(dir_fd, name.c_str(), flags | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_MNT_ID, &st) !=
        0) {
        return failErrno("stat " + name);
    }
    return st;
}

Mount mountOf(const struct statx& st) {
    const bool told = (st.stx_mask & STATX_MNT_ID) != 0;
    return {told ? st.stx_mnt_id : 0, st.stx_dev_major, st.stx_dev_minor};
}

Result<> removeTreeInMount(int dir_fd, const std::string& name, const Mount& mount) {
    const auto st = statxOf(dir_fd, name, AT_SYMLINK_NOFOLLOW);
    if (!st) {
        if (st.error().sysErrno() == ENOENT) return {};
        return fail(Error(st.error()));
    }
    const bool is_dir = S_ISDIR(st->stx_mode);
    if (is_dir) {
        if (mountOf(*st) != mount)
            return failErrno("remove " + name + ": something is mounted on it", EBUSY);
        ARCA_TRY(UniqueFd fd, openAt(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
        ARCA_TRY(const std::vector<std::string> entries, listDir(fd.get()));
        for (const std::string& entry : entries) {
            ARCA_CHECK(removeTreeInMount(fd.get(), entry, mount));
        }
    }
    if (::unlinkat(dir_fd, name.c_str(), is_dir ? AT_REMOVEDIR : 0) != 0 && errno != ENOENT) {
        return failErrno("remove " + name);
    }
    return {};
}

}  // namespace

Result<> removeTree(int dir_fd, const std::string& name) {
    // The mount is that of the directory which `name` is in: `name` may be a mount point.
    const size_t slash = name.rfind('/');
    std::string parent = ".";
    if (slash != std::string::npos) parent = slash == 0 ? "/" : name.substr(0, slash);
    const auto st = statxOf(dir_fd, parent, 0);
    if (!st) {
        if (st.error().sysErrno() == ENOENT) return {};
        return fail(Error(st.error()));
    }
    return removeTreeInMount(dir_fd, name, mountOf(*st));
}

Result<std::vector<std::string>> listDir(int dir_fd, const std::string& path) {
    ARCA_TRY(DirPtr dir, openDirStream(dir_fd, path));
    std::vector<std::string> names;
    while (true) {
        errno = 0;
        const dirent* entry = ::readdir(dir.get());
        if (entry == nullptr) break;
        const std::string_view name = entry->d_name;
        if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) return failErrno("read directory " + path);
    std::sort(names.begin(), names.end());
    return names;
}

Result<bool> isSameFile(int a, int b) {
    struct stat first {};
    struct stat second {};
    if (::fstat(a, &first) != 0 || ::fstat(b, &second) != 0) return failErrno("fstat");
    return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

std::string fdPath(int fd) {
    return "/proc/self/fd/" + std::to_string(fd);
}

Result<> closeOnExecFrom(int first) {
    if (::syscall(SYS_close_range, static_cast<unsigned>(first), ~0U, CLOSE_RANGE_CLOEXEC) == 0)
        return {};
    ARCA_TRY(const std::vector<std::string> names, listDir(AT_FDCWD, "/proc/self/fd"));
    for (const std::string& name : names) {
        const auto fd = parseNumber<int>(name);
        if (fd && *fd >= first) (void)::fcntl(*fd, F_SETFD, FD_CLOEXEC);
    }
    return {};
}

}  // namespace arca::base
