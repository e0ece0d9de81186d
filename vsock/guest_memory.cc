#include "vsock/guest_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <string>

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

// True when [start, start + size) has a byte in common with [other, other + other_size); neither
// wraps.
bool overlaps(uint64_t start, uint64_t size, uint64_t other, uint64_t other_size) {
    return start < other + other_size && other < start + size;
}

bool wraps(uint64_t start, uint64_t size) {
    return size > std::numeric_limits<uint64_t>::max() - start;
}

Result<> checkRegions(std::span<const MemoryRegion> regions) {
    for (size_t i = 0; i < regions.size(); ++i) {
        const MemoryRegion& region = regions[i];
        if (region.size == 0 || wraps(region.guest_address, region.size) ||
            wraps(region.user_address, region.size) || wraps(region.file_offset, region.size) ||
            region.file_offset + region.size > std::numeric_limits<int64_t>::max()) {
            return fail(Code::kInvalidArgument,
                        "memory region " + std::to_string(i) + ": size or address out of range");
        }
        for (const MemoryRegion& other : regions.first(i)) {
            if (overlaps(region.guest_address, region.size, other.guest_address, other.size) ||
                overlaps(region.user_address, region.size, other.user_address, other.size)) {
                return fail(Code::kInvalidArgument,
                            "memory region " + std::to_string(i) + ": overlaps another");
            }
        }
    }
    return {};
}

}  // namespace

GuestMemory& GuestMemory::operator=(GuestMemory&& other) noexcept {
    // The old mappings go with `other`.
    std::swap(regions_, other.regions_);
    return *this;
}

GuestMemory::~GuestMemory() {
    for (const Mapped& mapped : regions_) {
        if (mapped.mapping != nullptr) (void)::munmap(mapped.mapping, mapped.mapping_bytes);
    }
}

Result<GuestMemory> GuestMemory::map(std::span<const MemoryRegion> regions,
                                     std::span<const base::UniqueFd> files) {
    if (regions.empty() || regions.size() > kMaxRegions || regions.size() != files.size()) {
        return fail(Code::kInvalidArgument, "memory table: " + std::to_string(regions.size()) +
                                                " regions with " + std::to_string(files.size()) +
                                                " descriptors");
    }
    ARCA_CHECK(checkRegions(regions));
    GuestMemory memory;
    memory.regions_.reserve(regions.size());
    for (size_t i = 0; i < regions.size(); ++i) {
        const MemoryRegion& region = regions[i];
        const std::string what = "memory region " + std::to_string(i);
        struct stat status {};
        if (::fstat(files[i].get(), &status) != 0) return failErrno(what + ": stat");
        // A byte behind the end of the file would be a SIGBUS at the first touch.
        const uint64_t end = region.file_offset + region.size;
        if (!S_ISREG(status.st_mode) || end > static_cast<uint64_t>(status.st_size)) {
            return fail(Code::kInvalidArgument, what + ": ends behind its file");
        }
        // From offset 0, because a region of huge pages may begin where mmap(2) cannot.
        void* mapping = ::mmap(nullptr, end, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                               files[i].get(), 0);
        if (mapping == MAP_FAILED) return failErrno(what + ": map");
        memory.regions_.push_back(
            {region, static_cast<std::byte*>(mapping) + region.file_offset, mapping, end});
    }
    return memory;
}

GuestMemory GuestMemory::over(std::span<std::byte> memory, uint64_t guest_address,
                              uint64_t user_address) {
    GuestMemory out;
    out.regions_.push_back(
        {{guest_address, memory.size(), user_address, 0}, memory.data(), nullptr, 0});
    return out;
}

std::byte* GuestMemory::fromUser(uint64_t address, uint64_t size) const {
    for (const Mapped& mapped : regions_) {
        const uint64_t offset = address - mapped.region.user_address;
        if (address < mapped.region.user_address || offset >= mapped.region.size) continue;
        return size <= mapped.region.size - offset ? mapped.bytes + offset : nullptr;
    }
    return nullptr;
}

bool GuestMemory::fromGuest(uint64_t address, uint64_t size, std::vector<iovec>& out) const {
    const size_t before = out.size();
    // Each round leaves one region behind, and none is met twice: they do not overlap, and an
    // address that would wrap ends the loop.
    while (size > 0) {
        const auto found =
            std::find_if(regions_.begin(), regions_.end(), [&](const Mapped& mapped) {
                return address >= mapped.region.guest_address &&
                       address - mapped.region.guest_address < mapped.region.size;
            });
        if (found == regions_.end()) {
            out.resize(before);
            return false;
        }
        const uint64_t offset = address - found->region.guest_address;
        const uint64_t part = std::min(size, found->region.size - offset);
        out.push_back({found->bytes + offset, part});
        size -= part;
        address += part;
    }
    return true;
}

}  // namespace arca::vsock
