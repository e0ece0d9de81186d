// Walking lists of buffers in guest memory.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace arca::vsock {

// Copies the first `out.size()` bytes of `parts`, which must have that many. The copy is real: what
// the guest writes afterwards does not change what the caller sees.
inline void copyFrom(std::span<const iovec> parts, std::span<std::byte> out) {
    for (const iovec& part : parts) {
        const size_t count = std::min(part.iov_len, out.size());
        if (count == 0) continue;
        std::memcpy(out.data(), part.iov_base, count);
        out = out.subspan(count);
    }
    // Keeps the compiler from reading the guest's bytes a second time instead of the copy.
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Writes `bytes` to the start of `parts`, which must have room for them.
inline void copyTo(std::span<const iovec> parts, std::span<const std::byte> bytes) {
    for (const iovec& part : parts) {
        const size_t count = std::min(part.iov_len, bytes.size());
        if (count == 0) continue;
        std::memcpy(part.iov_base, bytes.data(), count);
        bytes = bytes.subspan(count);
    }
}

// Appends to `out` what of `parts` lies behind the first `skip` bytes, at most `limit` bytes. Gives
// the number of bytes appended.
inline size_t appendSlice(std::span<const iovec> parts, size_t skip, size_t limit,
                          std::vector<iovec>& out) {
    size_t appended = 0;
    for (const iovec& part : parts) {
        const size_t skipped = std::min(skip, part.iov_len);
        skip -= skipped;
        const size_t count = std::min(part.iov_len - skipped, limit - appended);
        if (count == 0) continue;
        out.push_back({static_cast<std::byte*>(part.iov_base) + skipped, count});
        appended += count;
    }
    return appended;
}

}  // namespace arca::vsock
