#include "runtime/state_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/ids.h"
#include "base/strings.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
namespace texts = base::texts;

constexpr char kRecordName[] = "state.json";
constexpr size_t kMaxRecordBytes = size_t{4} << 20U;  // annotations may be long
constexpr mode_t kDirMode = 0700;

}  // namespace

bool ContainerDir::stillLinked() const {
    struct stat held {};
    struct stat named {};
    if (::fstat(fd_.get(), &held) != 0) return false;
    if (::fstatat(root_fd_, id_.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0) return false;
    return held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

Result<> ContainerDir::lock(std::chrono::milliseconds patience) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + patience;
    long pause_ns = 1'000'000;
    while (::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) return failErrno("lock container " + id_);
        if (Clock::now() >= deadline) {
            return fail(Code::kDeadlineExceeded, "container " + id_ + " is in use by another call");
        }
        const timespec pause{0, pause_ns};
        (void)::nanosleep(&pause, nullptr);
        constexpr long kLongestPauseNs = 50'000'000;
        pause_ns = std::min(pause_ns * 2, kLongestPauseNs);
    }
    if (stillLinked()) return {};
    unlock();
    return fail(Code::kNotFound, texts::kContainerDoesNotExist);
}

void ContainerDir::unlock() {
    (void)::flock(fd_.get(), LOCK_UN);
}

bool ContainerDir::lockedByAnother() const {
    if (::flock(fd_.get(), LOCK_SH | LOCK_NB) != 0) return errno == EWOULDBLOCK;
    (void)::flock(fd_.get(), LOCK_UN);
    return false;
}

Result<Record> ContainerDir::load() const {
    auto text = base::readFile(kRecordName, kMaxRecordBytes, fd_.get());
    if (!text) {
        if (text.error().sysErrno() == ENOENT) {
            return fail(Code::kNotFound, texts::kContainerDoesNotExist);
        }
        return fail(std::move(text).error().withContext("container " + id_));
    }
    auto record = parseRecord(*text);
    if (!record) return fail(std::move(record).error().withContext("container " + id_));
    return record;
}

Result<> ContainerDir::save(const Record& record) const {
    auto saved = base::replaceFile(fd_.get(), kRecordName, writeRecord(record));
    if (!saved) return fail(std::move(saved).error().withContext("record container " + id_));
    return {};
}

Result<> ContainerDir::remove() {
    ARCA_TRY(const std::vector<std::string> names, base::listDir(fd_.get()));
    for (const std::string& name : names) {
        if (name != kRecordName) ARCA_CHECK(base::removeTree(fd_.get(), name));
    }
    ARCA_CHECK(base::removeTree(fd_.get(), kRecordName));
    if (::unlinkat(root_fd_, id_.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
        return failErrno("remove the state of container " + id_);
    }
    return {};
}

Result<StateStore> StateStore::open(const Globals& globals, Missing missing) {
    const int flags = O_RDONLY | O_DIRECTORY;
    auto fd = base::openAt(AT_FDCWD, globals.root, flags);
    if (!fd && fd.error().sysErrno() == ENOENT) {
        if (missing == Missing::kAllow) return StateStore(UniqueFd());
        ARCA_CHECK(base::makeDirs(globals.root, kDirMode));
        // The sticky bit keeps cleaners of XDG_RUNTIME_DIR away (XDG base directory specification).
        if (globals.root_sticky && ::chmod(globals.root.c_str(), kDirMode | S_ISVTX) != 0) {
            return failErrno("chmod " + globals.root);
        }
        fd = base::openAt(AT_FDCWD, globals.root, flags);
    }
    if (!fd) return fail(std::move(fd).error());
    return StateStore(std::move(*fd));
}

Result<ContainerDir> StateStore::reserve(const std::string& id) const {
    ARCA_CHECK(base::validateId(id));
    // Between mkdir and lock a delete may take the directory for the remains of a dead create.
    constexpr int kTries = 10;
    for (int i = 0; i < kTries; ++i) {
        if (::mkdirat(fd_.get(), id.c_str(), kDirMode) != 0) {
            if (errno == EEXIST) return fail(Code::kAlreadyExists, texts::kContainerIdExists);
            return failErrno("make the directory of container " + id);
        }
        auto dir = find(id);
        if (dir) {
            auto locked = dir->lock();
            if (locked) return dir;
            if (locked.error().code() != Code::kNotFound) return fail(std::move(locked).error());
        } else if (dir.error().code() != Code::kNotFound) {
            return dir;
        }
    }
    return fail(Code::kUnavailable, "container " + id + " is being deleted again and again");
}

Result<ContainerDir> StateStore::find(const std::string& id) const {
    ARCA_CHECK(base::validateId(id));
    if (!exists()) return fail(Code::kNotFound, texts::kContainerDoesNotExist);
    auto fd = base::openAt(fd_.get(), id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (!fd) {
        if (fd.error().sysErrno() == ENOENT || fd.error().sysErrno() == ENOTDIR) {
            return fail(Code::kNotFound, texts::kContainerDoesNotExist);
        }
        return fail(std::move(fd).error());
    }
    return ContainerDir(id, fd_.get(), std::move(*fd));
}

Result<std::vector<std::string>> StateStore::ids() const {
    std::vector<std::string> ids;
    if (!exists()) return ids;
    ARCA_TRY(const std::vector<std::string> names, base::listDir(fd_.get()));
    for (const std::string& name : names) {
        struct stat st {};
        if (!base::validateId(name)) continue;
        if (::fstatat(fd_.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (S_ISDIR(st.st_mode)) ids.push_back(name);
    }
    return ids;
}

}  // namespace arca::runtime
