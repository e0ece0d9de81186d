#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "archive/archive.h"
#include "archive/xattrs.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"

namespace arca::archive {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kBlockBytes = size_t{256} << 10U;
constexpr mode_t kModeBits = 0777;
constexpr mode_t kAllModeBits = 07777;
constexpr int kTries = 16;             // a process of the container may play against us
constexpr uint64_t kLoggedSkips = 16;  // an archive must not fill the log

struct ReadFree {
    void operator()(struct archive* archive) const noexcept { (void)::archive_read_free(archive); }
};

class Unpacker {
 public:
    Unpacker(int root_fd, const ByteSource& source, bool root_is_new, Fidelity fidelity,
             const Limits& limits)
        : root_fd_(root_fd),
          source_(source),
          root_is_new_(root_is_new),
          exact_(fidelity == Fidelity::kExact),
          limits_(limits),
          buffer_(kBlockBytes) {}

    Result<Unpacked> unpack() {
        archive_.reset(::archive_read_new());
        if (!archive_) return failErrno("make an archive reader", ENOMEM);
        struct archive* a = archive_.get();
        const bool ready =
            ::archive_read_support_filter_gzip(a) == ARCHIVE_OK &&
            ::archive_read_support_format_tar(a) == ARCHIVE_OK &&
            ::archive_read_open(a, this, nullptr, &Unpacker::fill, nullptr) == ARCHIVE_OK;
        if (!ready) return fail(failure("open the archive"));
        uint64_t seen = 0;
        while (true) {
            struct archive_entry* entry = nullptr;
            const int status = ::archive_read_next_header(a, &entry);
            if (status == ARCHIVE_EOF) break;
            // A warning is about names that are no ASCII: their bytes are used as they are.
            if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return fail(failure("read"));
            if (++seen > limits_.entries) {
                return fail(Code::kInvalidArgument,
                            "archive: more than " + std::to_string(limits_.entries) + " entries");
            }
            ARCA_CHECK(any(entry));
        }
        if (seen == 0) return fail(Code::kInvalidArgument, "archive: it is empty");
        ARCA_CHECK(applyFolderTimes());
        return result_;
    }

 private:
    static la_ssize_t fill(struct archive* a, void* self, const void** data) {
        auto& unpacker = *static_cast<Unpacker*>(self);
        auto n = unpacker.source_(unpacker.buffer_.data(), unpacker.buffer_.size());
        if (n) {
            *data = unpacker.buffer_.data();
            return static_cast<la_ssize_t>(*n);
        }
        ::archive_set_error(a, EIO, "%s", n.error().message().c_str());
        unpacker.source_failure_ = std::move(n).error();
        return -1;
    }

    // What the source said counts more than what libarchive made of it.
    base::Error failure(const std::string& what) {
        if (source_failure_) return *source_failure_;
        const char* why = ::archive_error_string(archive_.get());
        return {Code::kInvalidArgument,
                "archive: " + what + ": " + base::printable(why == nullptr ? "failed" : why)};
    }

    Result<std::vector<std::string>> partsOf(const char* text) const {
        const std::string_view path = text == nullptr ? "" : text;
        const auto wrong = [&](const char* why) {
            constexpr size_t kShown = 256;
            return fail(
                Code::kInvalidArgument,
                "archive: path \"" + base::printable(path.substr(0, kShown)) + "\": " + why);
        };
        if (path.empty()) return wrong("empty");
        if (path.front() == '/') return wrong("absolute");
        std::vector<std::string> out;
        for (const std::string_view part : base::split(path, '/')) {
            if (part.empty() || part == ".") continue;
            if (part == "..") return wrong("'..' is not allowed");
            out.emplace_back(part);
        }
        if (out.size() > limits_.depth) return wrong("nested too deeply");
        return out;
    }

    Result<> any(struct archive_entry* entry) {
        ARCA_TRY(std::vector<std::string> parts, partsOf(::archive_entry_pathname(entry)));
        const auto type = ::archive_entry_filetype(entry);
        const bool link = ::archive_entry_hardlink(entry) != nullptr;
        if (!isWanted(type, link)) {
            if (++result_.skipped <= kLoggedSkips) {
                base::log::warning("archive: left out " +
                                   base::printable(::archive_entry_pathname(entry)) +
                                   (link ? ": a hard link" : ": neither file, folder nor symlink"));
            }
            return {};
        }
        ++result_.entries;
        auto made =
            parts.empty() ? root(type, link, entry) : one(std::move(parts), type, link, entry);
        if (made) return {};
        return fail(std::move(made).error().withContext(
            "unpack " + base::printable(::archive_entry_pathname(entry))));
    }

    [[nodiscard]] bool isWanted(unsigned type, bool link) const {
        const bool plain = type == AE_IFREG || type == AE_IFDIR || type == AE_IFLNK;
        if (!exact_) return plain && !link;
        return plain || link || isNode(type);
    }

    static bool isNode(unsigned type) {
        return type == AE_IFCHR || type == AE_IFBLK || type == AE_IFIFO;
    }

    Result<> root(unsigned type, bool link, struct archive_entry* entry) {
        if (type != AE_IFDIR || link) {
            return fail(Code::kInvalidArgument, "archive: the root is no folder");
        }
        if (!root_is_new_) return {};
        ARCA_TRY(const UniqueFd fd, base::openAt(root_fd_, ".", O_RDONLY | O_DIRECTORY));
        ARCA_CHECK(applyAttributes(fd.get(), entry));
        return rememberTime({}, entry);
    }

    Result<> one(std::vector<std::string> parts, unsigned type, bool link,
                 struct archive_entry* entry) {
        const std::string name = parts.back();
        std::vector<std::string> above(parts.begin(), parts.end() - 1);
        ARCA_TRY(const int parent, openParent(above));
        if (link) return hardLink(parent, name, entry);
        if (type == AE_IFLNK) return symlink(parent, name, entry);
        if (type == AE_IFREG) return file(parent, name, entry);
        if (isNode(type)) return node(parent, name, type, entry);
        ARCA_CHECK(folder(parent, name, entry));
        return rememberTime(std::move(parts), entry);
    }

    // The folder of the last entry is mostly that of the next.
    Result<int> openParent(const std::vector<std::string>& parts) {
        if (parts.empty()) return root_fd_;
        if (last_parent_.valid() && parts == last_parts_) return last_parent_.get();
        UniqueFd dir;
        for (const std::string& part : parts) {
            ARCA_TRY(dir, enter(dir.valid() ? dir.get() : root_fd_, part));
        }
        last_parts_ = parts;
        last_parent_ = std::move(dir);
        return last_parent_.get();
    }

    // One folder down, made if need be.
    Result<UniqueFd> enter(int dir_fd, const std::string& name) {
        for (int i = 0; i < kTries; ++i) {
            UniqueFd fd(::openat(dir_fd, name.c_str(),
                                 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
            if (fd.valid()) return fd;
            if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) break;
            if (errno != ENOENT) ARCA_CHECK(clear(dir_fd, name));
            if (::mkdirat(dir_fd, name.c_str(), 0755) != 0 && errno != EEXIST) break;
        }
        return failErrno("folder " + base::printable(name));
    }

    // Makes room for an entry of that name.
    Result<> clear(int dir_fd, const std::string& name) {
        if (::unlinkat(dir_fd, name.c_str(), 0) == 0 || errno == ENOENT) return {};
        if (errno != EISDIR && errno != EPERM) return failErrno("replace " + base::printable(name));
        // What is remembered may go with it, unless it is the folder that is worked in.
        if (dir_fd != last_parent_.get()) last_parent_.reset();
        return base::removeTree(dir_fd, name);
    }

    // Owner, mode and, if exact, extended attributes. In this order: a new owner takes the set-id
    // bits and the capabilities away.
    Result<> applyAttributes(int fd, struct archive_entry* entry) {
        const auto uid = static_cast<uid_t>(::archive_entry_uid(entry));
        const auto gid = static_cast<gid_t>(::archive_entry_gid(entry));
        if (::fchown(fd, uid, gid) != 0) return failErrno("chown");
        const mode_t mode = ::archive_entry_perm(entry) & (exact_ ? kAllModeBits : kModeBits);
        if (::fchmod(fd, mode) != 0) return failErrno("chmod");
        return extendedAttributes(fd, entry);
    }

    Result<> extendedAttributes(int fd, struct archive_entry* entry) {
        if (!exact_) return {};
        ARCA_TRY(const uint64_t lost, writeAttributes(fd, entry));
        result_.lost_attributes += lost;
        return {};
    }

    static timespec timeOf(struct archive_entry* entry) {
        return {::archive_entry_mtime(entry), ::archive_entry_mtime_nsec(entry)};
    }

    Result<> applyTime(int dir_fd, const std::string& name, struct archive_entry* entry) const {
        if (!exact_ || !::archive_entry_mtime_is_set(entry)) return {};
        const timespec times[2] = {timeOf(entry), timeOf(entry)};
        if (::utimensat(dir_fd, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
            return failErrno("set the time");
        }
        return {};
    }

    // A folder's is changed by what is made in it afterwards.
    Result<> rememberTime(std::vector<std::string> parts, struct archive_entry* entry) {
        if (!exact_ || !::archive_entry_mtime_is_set(entry)) return {};
        if (folder_times_.size() >= limits_.links) {
            return fail(Code::kInvalidArgument,
                        "more than " + std::to_string(limits_.links) + " folders");
        }
        folder_times_.emplace_back(base::join(parts, "/"), timeOf(entry));
        return {};
    }

    Result<> applyFolderTimes() {
        for (const auto& [path, time] : folder_times_) {
            UniqueFd dir;
            for (const std::string_view part : base::split(path, '/')) {
                if (part.empty()) continue;
                dir.reset(::openat(dir.valid() ? dir.get() : root_fd_, std::string(part).c_str(),
                                   O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
                // A later entry has taken its place.
                if (!dir.valid()) break;
            }
            if (!path.empty() && !dir.valid()) continue;
            const timespec times[2] = {time, time};
            if (::utimensat(path.empty() ? root_fd_ : dir.get(), ".", times, 0) != 0) {
                return failErrno("set the time of folder " + base::printable(path));
            }
        }
        return {};
    }

    Result<> folder(int parent, const std::string& name, struct archive_entry* entry) {
        ARCA_TRY(const UniqueFd fd, enter(parent, name));
        return applyAttributes(fd.get(), entry);
    }

    // What cannot be opened without a deed of its own: by its place.
    Result<> applyToNode(int parent, const std::string& name, struct archive_entry* entry) {
        const auto uid = static_cast<uid_t>(::archive_entry_uid(entry));
        const auto gid = static_cast<gid_t>(::archive_entry_gid(entry));
        ARCA_TRY(const UniqueFd fd, base::openAt(parent, name, O_PATH | O_NOFOLLOW));
        if (::fchownat(fd.get(), "", uid, gid, AT_EMPTY_PATH) != 0) return failErrno("chown");
        if (::archive_entry_filetype(entry) != AE_IFLNK &&
            ::chmod(base::fdPath(fd.get()).c_str(), ::archive_entry_perm(entry) & kAllModeBits) !=
                0) {
            return failErrno("chmod");
        }
        ARCA_CHECK(extendedAttributes(fd.get(), entry));
        return applyTime(parent, name, entry);
    }

    Result<> node(int parent, const std::string& name, unsigned type, struct archive_entry* entry) {
        const auto major = static_cast<unsigned>(::archive_entry_rdevmajor(entry));
        const auto minor = static_cast<unsigned>(::archive_entry_rdevminor(entry));
        const dev_t device = type == AE_IFIFO ? 0 : makedev(major, minor);
        for (int i = 0; ::mknodat(parent, name.c_str(), type | 0600U, device) != 0; ++i) {
            if (errno != EEXIST || i == kTries) return failErrno("mknod");
            ARCA_CHECK(clear(parent, name));
        }
        return applyToNode(parent, name, entry);
    }

    // Of two names of one file the second; the first was unpacked before.
    Result<> hardLink(int parent, const std::string& name, struct archive_entry* entry) {
        ARCA_TRY(std::vector<std::string> parts, partsOf(::archive_entry_hardlink(entry)));
        if (parts.empty()) return fail(Code::kInvalidArgument, "a hard link to the root");
        const std::string first = std::move(parts.back());
        parts.pop_back();
        UniqueFd dir;
        for (const std::string& part : parts) {
            dir.reset(::openat(dir.valid() ? dir.get() : root_fd_, part.c_str(),
                               O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
            if (!dir.valid()) return failErrno("hard link: folder " + base::printable(part));
        }
        const int from = dir.valid() ? dir.get() : root_fd_;
        for (int i = 0; ::linkat(from, first.c_str(), parent, name.c_str(), 0) != 0; ++i) {
            if (errno != EEXIST || i == kTries) return failErrno("hard link");
            // To itself: it is there already, and must not be cleared away.
            struct stat one {};
            struct stat other {};
            if (::fstatat(from, first.c_str(), &one, AT_SYMLINK_NOFOLLOW) == 0 &&
                ::fstatat(parent, name.c_str(), &other, AT_SYMLINK_NOFOLLOW) == 0 &&
                one.st_dev == other.st_dev && one.st_ino == other.st_ino) {
                return {};
            }
            ARCA_CHECK(clear(parent, name));
        }
        return {};
    }

    Result<> symlink(int parent, const std::string& name, struct archive_entry* entry) {
        const char* target = ::archive_entry_symlink(entry);
        if (target == nullptr || *target == '\0') {
            return fail(Code::kInvalidArgument, "a symlink without a target");
        }
        for (int i = 0; ::symlinkat(target, parent, name.c_str()) != 0; ++i) {
            if (errno != EEXIST || i == kTries) return failErrno("symlink");
            ARCA_CHECK(clear(parent, name));
        }
        return applyToNode(parent, name, entry);
    }

    Result<> file(int parent, const std::string& name, struct archive_entry* entry) {
        const int64_t size = ::archive_entry_size(entry);
        if (size < 0 || static_cast<uint64_t>(size) > limits_.bytes - bytes_) {
            return fail(Code::kInvalidArgument,
                        "the files are more than " + std::to_string(limits_.bytes) + " bytes");
        }
        bytes_ += static_cast<uint64_t>(size);
        // Always a new file: the old one may have other names, or be read by somebody.
        UniqueFd fd;
        for (int i = 0; !fd.valid(); ++i) {
            fd.reset(::openat(parent, name.c_str(),
                              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
            if (fd.valid()) break;
            if (errno != EEXIST || i == kTries) return failErrno("create");
            ARCA_CHECK(clear(parent, name));
        }
        ARCA_CHECK(content(fd.get(), size));
        ARCA_CHECK(applyAttributes(fd.get(), entry));
        return applyTime(parent, name, entry);
    }

    Result<> content(int fd, int64_t size) {
        while (true) {
            const void* data = nullptr;
            size_t n = 0;
            la_int64_t at = 0;
            const int status = ::archive_read_data_block(archive_.get(), &data, &n, &at);
            if (status == ARCHIVE_EOF) break;
            if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return fail(failure("read"));
            if (at < 0 || at > size || n > static_cast<uint64_t>(size - at)) {
                return fail(Code::kInvalidArgument, "more data than the entry's size");
            }
            ARCA_CHECK(writeAt(fd, static_cast<const char*>(data), n, at));
        }
        // A sparse file may end in a hole.
        if (::ftruncate(fd, size) != 0) return failErrno("truncate");
        return {};
    }

    static Result<> writeAt(int fd, const char* data, size_t size, off_t at) {
        while (size > 0) {
            const ssize_t n = ::pwrite(fd, data, size, at);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return failErrno("write");
            data += n;
            size -= static_cast<size_t>(n);
            at += n;
        }
        return {};
    }

    int root_fd_;
    const ByteSource& source_;
    bool root_is_new_;
    bool exact_;
    const Limits& limits_;
    std::vector<char> buffer_;
    std::optional<base::Error> source_failure_;
    Unpacked result_;
    uint64_t bytes_ = 0;
    std::vector<std::string> last_parts_;
    UniqueFd last_parent_;
    std::vector<std::pair<std::string, timespec>> folder_times_;
    std::unique_ptr<struct archive, ReadFree> archive_;
};

}  // namespace

Result<Unpacked> unpackTree(int dir_fd, const ByteSource& source, bool root_is_new,
                            Fidelity fidelity, const Limits& limits) {
    return Unpacker(dir_fd, source, root_is_new, fidelity, limits).unpack();
}

}  // namespace arca::archive
