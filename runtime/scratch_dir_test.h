// A directory that goes with the test, and the number of open descriptors.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "base/files.h"

namespace arca::runtime {

class ScratchDir {
 public:
    ScratchDir() {
        char name[] = "/tmp/arca-test-XXXXXX";
        if (::mkdtemp(name) != nullptr) path_ = name;
    }
    ScratchDir(const ScratchDir&) = delete;
    ScratchDir& operator=(const ScratchDir&) = delete;
    ~ScratchDir() { (void)base::removeTree(AT_FDCWD, path_); }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
    std::string path_;
};

inline size_t openDescriptors() {
    const auto names = base::listDir(AT_FDCWD, "/proc/self/fd");
    return names ? names->size() : 0;
}

inline std::string textOf(const std::string& path) {
    const auto text = base::readFile(path);
    return text ? *text : "<" + text.error().message() + ">";
}

inline void writeText(const std::string& path, const std::string& text) {
    base::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    (void)base::writeAll(fd.get(), text);
}

}  // namespace arca::runtime
