// Owner of one file descriptor.
//
// Every descriptor of the project lives in one of these from the line that makes it; a raw `int fd`
// parameter is a borrow. Used by every program, single- and multi-threaded alike.
#pragma once

#include <utility>

namespace arca::base {

class UniqueFd {
 public:
    explicit UniqueFd(int fd = -1) noexcept : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() { reset(); }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }

    // Gives the descriptor up without closing it; the caller owns it from here.
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

    // Closes what is held and takes `fd` instead. Keeps errno. The close is not retried on EINTR:
    // Linux has freed the number by then.
    void reset(int fd = -1) noexcept;

 private:
    int fd_;
};

}  // namespace arca::base
