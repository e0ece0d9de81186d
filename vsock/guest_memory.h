// The guest's memory as the VMM shares it, and the only way from a guest's address to a pointer.
//
// Every address that comes out of a ring goes through here. The guest goes on writing while we
// read: whoever looks at bytes behind such a pointer copies them first and judges the copy.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vsock {

// One entry of the memory table. Source: vhost-user, "Memory region description".
struct MemoryRegion {
    uint64_t guest_address = 0;
    uint64_t size = 0;
    uint64_t user_address = 0;  // where the VMM has it; rings are named by such addresses
    uint64_t file_offset = 0;
};

class GuestMemory {
 public:
    // vhost-user's limit without the memory slots extension.
    static constexpr size_t kMaxRegions = 8;

    GuestMemory() = default;
    GuestMemory(GuestMemory&& other) noexcept : regions_(std::move(other.regions_)) {
        other.regions_.clear();
    }
    GuestMemory& operator=(GuestMemory&& other) noexcept;
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;
    ~GuestMemory();

    // Maps each region from the descriptor with the same index, shared and writable. Fails with
    // kInvalidArgument on an empty, overflowing or overlapping region, one that ends behind its
    // file, or a count that is wrong; with kSystem when mmap(2) fails. The descriptors are not
    // needed afterwards.
    static base::Result<GuestMemory> map(std::span<const MemoryRegion> regions,
                                         std::span<const base::UniqueFd> files);

    // One region over memory that the caller owns and keeps. For tests.
    static GuestMemory over(std::span<std::byte> memory, uint64_t guest_address,
                            uint64_t user_address);

    // The `size` bytes at a VMM's virtual address, all in one region; nullptr when they are not.
    [[nodiscard]] std::byte* fromUser(uint64_t address, uint64_t size) const;

    // Appends the `size` bytes at a guest-physical address to `out`, in as many parts as there are
    // regions in the way. False (and `out` is as it was) when a byte of it is no memory. No bytes:
    // true, nothing appended.
    [[nodiscard]] bool fromGuest(uint64_t address, uint64_t size, std::vector<iovec>& out) const;

 private:
    struct Mapped {
        MemoryRegion region;
        std::byte* bytes = nullptr;  // the region's first byte
        void* mapping = nullptr;     // what munmap(2) takes; nullptr: not ours
        size_t mapping_bytes = 0;
    };
    std::vector<Mapped> regions_;
};

}  // namespace arca::vsock
