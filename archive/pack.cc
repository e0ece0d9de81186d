#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "archive/archive.h"
#include "archive/xattrs.h"
#include "base/files.h"
#include "base/strings.h"

namespace arca::archive {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr int kBlockBytes = 256 << 10;
constexpr int kNoAttributes = -1;

struct DirCloser {
    void operator()(DIR* dir) const noexcept { (void)::closedir(dir); }
};
struct WriteFree {
    void operator()(struct archive* archive) const noexcept { (void)::archive_write_free(archive); }
};
struct EntryFree {
    void operator()(struct archive_entry* entry) const noexcept { ::archive_entry_free(entry); }
};

// Gone or changed into something else since it was listed: nothing to pack.
bool vanished(int sys_errno) {
    return sys_errno == ENOENT || sys_errno == ELOOP || sys_errno == ENXIO || sys_errno == ENOTDIR;
}

// Whether the text of a symlink that lies `depth` folders below the root leads above it.
bool leavesTree(const std::string& target, size_t depth) {
    if (target.empty() || target.front() == '/') return true;
    for (const std::string_view part : base::split(target, '/')) {
        if (part.empty() || part == ".") continue;
        if (part != "..") {
            ++depth;
        } else if (depth-- == 0) {
            return true;
        }
    }
    return false;
}

class Packer {
 public:
    Packer(const ByteSink& sink, Fidelity fidelity, const Limits& limits)
        : sink_(sink), fidelity_(fidelity), limits_(limits), buffer_(kBlockBytes) {}

    Result<Packed> tree(int root_fd) {
        ARCA_CHECK(open());
        struct stat st {};
        if (::fstat(root_fd, &st) != 0) return failErrno("stat");
        ARCA_CHECK(header("./", st, root_fd));
        ARCA_CHECK(folder(root_fd, ".", "", 0));
        return close();
    }

    Result<Packed> oneFile(int file_fd, const char* name) {
        ARCA_CHECK(open());
        struct stat folder {};
        folder.st_mode = S_IFDIR | 0755;
        ARCA_CHECK(header("./", folder, kNoAttributes));
        ARCA_CHECK(regular(file_fd, name));
        return close();
    }

 private:
    Result<> open() {
        archive_.reset(::archive_write_new());
        entry_.reset(::archive_entry_new());
        if (!archive_ || !entry_) return failErrno("make an archive", ENOMEM);
        struct archive* a = archive_.get();
        // Level 1: the stream goes to the next kernel, not around the world.
        const bool ready =
            ::archive_write_set_format_pax(a) == ARCHIVE_OK &&
            // One form of extended attributes and not two.
            ::archive_write_set_format_option(a, "pax", "xattrheader", "SCHILY") == ARCHIVE_OK &&
            ::archive_write_add_filter_gzip(a) == ARCHIVE_OK &&
            ::archive_write_set_filter_option(a, "gzip", "compression-level", "1") == ARCHIVE_OK &&
            ::archive_write_set_filter_option(a, "gzip", "timestamp", nullptr) == ARCHIVE_OK &&
            ::archive_write_set_bytes_per_block(a, kBlockBytes) == ARCHIVE_OK &&
            ::archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK &&
            ::archive_write_open(a, this, nullptr, &Packer::flush, nullptr) == ARCHIVE_OK;
        if (!ready) return failed("open the archive");
        return {};
    }

    Result<Packed> close() {
        if (::archive_write_close(archive_.get()) != ARCHIVE_OK) {
            return fail(std::move(failed("close the archive")).error());
        }
        return packed_;
    }

    static la_ssize_t flush(struct archive* a, void* self, const void* data, size_t size) {
        auto& packer = *static_cast<Packer*>(self);
        auto written = packer.sink_({static_cast<const char*>(data), size});
        if (written) return static_cast<la_ssize_t>(size);
        ::archive_set_error(a, EIO, "%s", written.error().message().c_str());
        packer.sink_failure_ = std::move(written);
        return -1;
    }

    // What the sink said counts more than what libarchive made of it.
    Result<> failed(const std::string& what) {
        if (!sink_failure_) return sink_failure_;
        const char* why = ::archive_error_string(archive_.get());
        return fail(Code::kSystem, what + ": " + (why == nullptr ? "failed" : why));
    }

    [[nodiscard]] bool exact() const { return fidelity_ == Fidelity::kExact; }

    // An error when the reader would not restore it, and that must be an error.
    [[nodiscard]] Result<> loses(const std::string& path, const char* what) const {
        if (fidelity_ != Fidelity::kProtocolOrError) return {};
        return fail(Code::kUnsupported, base::printable(path) + ": " + what);
    }

    Result<> checkLosses(const std::string& path, const struct stat& st, int attributes_of) const {
        if (fidelity_ != Fidelity::kProtocolOrError) return {};
        if ((st.st_mode & S_ISUID) != 0) return loses(path, "set-user-id bit");
        if ((st.st_mode & S_ISGID) != 0) return loses(path, "set-group-id bit");
        if ((st.st_mode & S_ISVTX) != 0) return loses(path, "sticky bit");
        if (attributes_of == kNoAttributes) return {};
        ARCA_TRY(const bool any, hasAttributes(attributes_of));
        return any ? loses(path, "extended attributes") : Result<>();
    }

    // Writes the entry's header; what is particular to its type is in the entry already.
    // `attributes_of`: the file, for its extended attributes.
    Result<> header(const std::string& path, const struct stat& st, int attributes_of) {
        if (++packed_.entries > limits_.entries) {
            return fail(Code::kInvalidArgument,
                        "more than " + std::to_string(limits_.entries) + " files and folders");
        }
        ARCA_CHECK(checkLosses(path, st, attributes_of));
        struct archive_entry* entry = entry_.get();
        ::archive_entry_set_pathname(entry, path.c_str());
        ::archive_entry_set_filetype(entry, st.st_mode & S_IFMT);
        ::archive_entry_set_perm(entry, st.st_mode & 07777U);
        ::archive_entry_set_uid(entry, st.st_uid);
        ::archive_entry_set_gid(entry, st.st_gid);
        ::archive_entry_set_mtime(entry, st.st_mtim.tv_sec, exact() ? st.st_mtim.tv_nsec : 0);
        if (!::archive_entry_size_is_set(entry)) ::archive_entry_set_size(entry, 0);
        if (exact() && attributes_of != kNoAttributes)
            ARCA_CHECK(readAttributes(attributes_of, entry));
        const int status = ::archive_write_header(archive_.get(), entry);
        ::archive_entry_clear(entry);
        // A warning is about names that are no ASCII: they are written as the bytes that they are.
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return failed(path);
        return {};
    }

    // A file with several names: where the first of them was packed. Sets the entry up as a link to
    // that, or remembers this one.
    Result<bool> linkToFirst(const struct stat& st, const std::string& path) {
        if (!exact() || st.st_nlink < 2) return false;
        const auto [first, is_new] = first_names_.try_emplace({st.st_dev, st.st_ino}, path);
        if (first_names_.size() > limits_.links) {
            return fail(Code::kInvalidArgument,
                        "more than " + std::to_string(limits_.links) + " files with several names");
        }
        if (is_new) return false;
        ::archive_entry_set_hardlink(entry_.get(), first->second.c_str());
        return true;
    }

    Result<> folder(int parent_fd, const char* name, const std::string& path, unsigned depth) {
        if (depth > limits_.depth) {
            return fail(Code::kInvalidArgument, "folders are nested deeper than " +
                                                    std::to_string(limits_.depth) + " levels");
        }
        UniqueFd fd(::openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!fd.valid()) return vanished(errno) ? Result<>() : Result<>(failErrno("open " + path));
        if (depth > 0) {
            struct stat st {};
            if (::fstat(fd.get(), &st) != 0) return failErrno("stat " + path);
            ARCA_CHECK(header(path, st, fd.get()));
        }
        const std::unique_ptr<DIR, DirCloser> dir(::fdopendir(fd.get()));
        if (!dir) return failErrno("read folder " + path);
        const int dir_fd = fd.release();  // owned by the stream now
        // Read name by name: a folder may hold millions.
        while (true) {
            errno = 0;
            const dirent* found = ::readdir(dir.get());
            if (found == nullptr && errno != 0) return failErrno("read folder " + path);
            if (found == nullptr) return {};
            const std::string child = found->d_name;
            if (child == "." || child == "..") continue;
            ARCA_CHECK(any(dir_fd, child, path.empty() ? child : path + "/" + child, depth));
        }
    }

    Result<> any(int dir_fd, const std::string& name, const std::string& path, unsigned depth) {
        struct stat st {};
        if (::fstatat(dir_fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
            return vanished(errno) ? Result<>() : Result<>(failErrno("stat " + path));
        }
        if (S_ISDIR(st.st_mode)) return folder(dir_fd, name.c_str(), path, depth + 1);
        if (S_ISLNK(st.st_mode)) return symlink(dir_fd, name, path, st, depth);
        if (S_ISREG(st.st_mode)) return file(dir_fd, name, path);
        if (S_ISSOCK(st.st_mode)) return {};  // nobody listens in a copy
        return device(dir_fd, name, path, st);
    }

    // And FIFOs.
    Result<> device(int dir_fd, const std::string& name, const std::string& path,
                    const struct stat& st) {
        if (!exact()) return loses(path, S_ISFIFO(st.st_mode) ? "a FIFO" : "a device");
        ARCA_TRY(const bool link, linkToFirst(st, path));
        if (!link && !S_ISFIFO(st.st_mode)) {
            ::archive_entry_set_rdevmajor(entry_.get(), major(st.st_rdev));
            ::archive_entry_set_rdevminor(entry_.get(), minor(st.st_rdev));
        }
        return headerOf(dir_fd, name, path, st, link);
    }

    // The header of something that is not opened otherwise.
    Result<> headerOf(int dir_fd, const std::string& name, const std::string& path,
                      const struct stat& st, bool link) {
        if (link || fidelity_ == Fidelity::kProtocol) return header(path, st, kNoAttributes);
        const UniqueFd fd(::openat(dir_fd, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
        if (!fd.valid()) {
            ::archive_entry_clear(entry_.get());
            return vanished(errno) ? Result<>() : Result<>(failErrno("open " + path));
        }
        return header(path, st, fd.get());
    }

    Result<> symlink(int dir_fd, const std::string& name, const std::string& path,
                     const struct stat& st, unsigned depth) {
        std::array<char, 4096> text{};
        const ssize_t n = ::readlinkat(dir_fd, name.c_str(), text.data(), text.size());
        if (n < 0) {
            const bool gone = errno == EINVAL || vanished(errno);
            return gone ? Result<>() : Result<>(failErrno("readlink " + path));
        }
        const std::string target(text.data(), static_cast<size_t>(n));
        if (fidelity_ == Fidelity::kProtocol && leavesTree(target, depth)) return {};
        ARCA_TRY(const bool link, linkToFirst(st, path));
        if (!link) ::archive_entry_set_symlink(entry_.get(), target.c_str());
        return headerOf(dir_fd, name, path, st, link);
    }

    Result<> file(int dir_fd, const std::string& name, const std::string& path) {
        const UniqueFd fd(::openat(dir_fd, name.c_str(),
                                   O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        if (!fd.valid()) return vanished(errno) ? Result<>() : Result<>(failErrno("open " + path));
        return regular(fd.get(), path);
    }

    Result<> regular(int fd, const std::string& path) {
        struct stat st {};
        if (::fstat(fd, &st) != 0) return failErrno("stat " + path);
        if (!S_ISREG(st.st_mode)) return {};
        ARCA_TRY(const bool link, linkToFirst(st, path));
        if (link) return header(path, st, kNoAttributes);
        packed_.bytes += static_cast<uint64_t>(st.st_size);
        if (packed_.bytes > limits_.bytes) {
            return fail(Code::kInvalidArgument,
                        "more than " + std::to_string(limits_.bytes) + " bytes");
        }
        ::archive_entry_set_size(entry_.get(), st.st_size);
        ARCA_CHECK(header(path, st, fd));
        // Exactly what the header says: what has grown is cut, and what has shrunk is filled with
        // zeros by the next header.
        auto left = static_cast<uint64_t>(st.st_size);
        while (left > 0) {
            const size_t wanted = std::min<uint64_t>(left, buffer_.size());
            const ssize_t n = ::read(fd, buffer_.data(), wanted);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return failErrno("read " + path);
            if (n == 0) break;
            if (::archive_write_data(archive_.get(), buffer_.data(), static_cast<size_t>(n)) < 0) {
                return failed(path);
            }
            left -= static_cast<uint64_t>(n);
        }
        return {};
    }

    const ByteSink& sink_;
    Fidelity fidelity_;
    const Limits& limits_;
    std::vector<char> buffer_;
    Result<> sink_failure_;
    Packed packed_;
    std::map<std::pair<dev_t, ino_t>, std::string> first_names_;
    std::unique_ptr<struct archive_entry, EntryFree> entry_;
    std::unique_ptr<struct archive, WriteFree> archive_;
};

}  // namespace

Result<Packed> packTree(int dir_fd, const ByteSink& sink, Fidelity fidelity, const Limits& limits) {
    return Packer(sink, fidelity, limits).tree(dir_fd);
}

Result<Packed> packFile(int file_fd, const char* name, const ByteSink& sink, Fidelity fidelity,
                        const Limits& limits) {
    return Packer(sink, fidelity, limits).oneFile(file_fd, name);
}

}  // namespace arca::archive
