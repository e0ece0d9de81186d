// Bytes that wait for a host socket: a ring that grows when needed and gives its memory back.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace arca::vsock {

class ByteQueue {
 public:
    [[nodiscard]] size_t size() const { return size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }
    // Memory held, for the tests.
    [[nodiscard]] size_t capacity() const { return capacity_; }

    // Copies `bytes` behind what is there. The caller bounds the size: nothing is ever refused.
    void append(std::span<const std::byte> bytes);

    // What is there, oldest first, in at most two parts; valid until the next call that changes it.
    [[nodiscard]] std::array<iovec, 2> parts() const;

    // Drops the oldest `count` (at most size()) bytes. The last byte to go frees the memory.
    void drop(size_t count);
    void clear();

 private:
    void grow(size_t needed);

    std::unique_ptr<std::byte[]> data_;
    size_t capacity_ = 0;
    size_t first_ = 0;
    size_t size_ = 0;
};

}  // namespace arca::vsock
