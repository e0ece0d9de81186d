// A scratch directory for unit tests; only *_test.cc include this.
#pragma once

#include <dirent.h>
#include <fcntl.h>

#include <cstddef>
#include <cstdlib>
#include <string>

#include "base/files.h"
#include "base/unique_fd.h"

namespace arca::base {

// Made in $TMPDIR or /tmp, removed with all in it at the end.
class TempDir {
 public:
    TempDir() {
        const char* where = std::getenv("TMPDIR");
        path_ = std::string(where == nullptr ? "/tmp" : where) + "/arca-test-XXXXXX";
        if (::mkdtemp(path_.data()) == nullptr) std::abort();
        fd_ = UniqueFd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    ~TempDir() { (void)removeTree(AT_FDCWD, path_); }

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

 private:
    std::string path_;
    UniqueFd fd_;
};

// How many descriptors this process has open, for tests that nothing leaks.
inline size_t openFdCount() {
    const auto names = listDir(AT_FDCWD, "/proc/self/fd");
    return names ? names->size() : 0;
}

}  // namespace arca::base
