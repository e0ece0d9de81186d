#include "vsock/byte_queue.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace arca::vsock {
namespace {

constexpr size_t kSmallest = 4096;

}  // namespace

void ByteQueue::append(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    if (bytes.size() > capacity_ - size_) grow(size_ + bytes.size());
    const size_t end = (first_ + size_) % capacity_;
    const size_t before_wrap = std::min(bytes.size(), capacity_ - end);
    std::memcpy(data_.get() + end, bytes.data(), before_wrap);
    std::memcpy(data_.get(), bytes.data() + before_wrap, bytes.size() - before_wrap);
    size_ += bytes.size();
}

std::array<iovec, 2> ByteQueue::parts() const {
    const size_t before_wrap = std::min(size_, capacity_ - first_);
    return {iovec{data_.get() + first_, before_wrap}, iovec{data_.get(), size_ - before_wrap}};
}

void ByteQueue::drop(size_t count) {
    size_ -= count;
    if (size_ == 0) {
        clear();
        return;
    }
    first_ = (first_ + count) % capacity_;
}

void ByteQueue::clear() {
    data_.reset();
    capacity_ = first_ = size_ = 0;
}

void ByteQueue::grow(size_t needed) {
    const size_t capacity = std::max(kSmallest, std::bit_ceil(needed));
    // Not make_unique: that would write zeros over memory that is about to be filled.
    std::unique_ptr<std::byte[]> data(new std::byte[capacity]);
    size_t at = 0;
    for (const iovec& part : parts()) {
        if (part.iov_len == 0) continue;
        std::memcpy(data.get() + at, part.iov_base, part.iov_len);
        at += part.iov_len;
    }
    data_ = std::move(data);
    capacity_ = capacity;
    first_ = 0;
}

}  // namespace arca::vsock
