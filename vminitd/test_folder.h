// A folder of its own for a test, gone with it.
#pragma once

#include <fcntl.h>
#include <stdlib.h>

#include <string>

#include "base/files.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vminitd {

class TestFolder {
 public:
    TestFolder() {
        char name[] = "/tmp/arca-vminitd-test-XXXXXX";
        path_ = ::mkdtemp(name);
        fd_ = base::UniqueFd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
    ~TestFolder() { (void)base::removeTree(AT_FDCWD, path_); }
    TestFolder(const TestFolder&) = delete;
    TestFolder& operator=(const TestFolder&) = delete;

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] const std::string& path() const { return path_; }
    void write(const std::string& name, const std::string& text) const {
        const base::UniqueFd file(
            ::openat(fd(), name.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        (void)base::writeAll(file.get(), text);
    }

 private:
    std::string path_;
    base::UniqueFd fd_;
};

// Why a Result is an error, for a test's message; "" when it is none.
template <typename T>
std::string why(const base::Result<T>& result) {
    return result ? std::string() : result.error().message();
}

}  // namespace arca::vminitd
