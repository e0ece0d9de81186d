#include "vsock/virtqueue.h"

#include <endian.h>

#include <atomic>
#include <bit>
#include <cstddef>
#include <string>

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::Result;

// Layout. The available ring is flags, idx, size entries of 2 bytes, used_event; the used ring is
// flags, idx, size entries of {id, len}, avail_event.
constexpr size_t kDescriptorBytes = 16;
constexpr size_t kIndexOffset = 2;
constexpr size_t kEntriesOffset = 4;
constexpr size_t kUsedEntryBytes = 8;

constexpr uint16_t kDescriptorNext = 1;
constexpr uint16_t kDescriptorWrite = 2;
constexpr uint16_t kDescriptorIndirect = 4;
constexpr uint16_t kAvailableNoInterrupt = 1;
constexpr uint16_t kUsedNoNotify = 1;

// Shared memory is read and written through these alone: one access each, never repeated by the
// compiler. The caller has checked range and alignment.
uint16_t load16(const std::byte* at, std::memory_order order = std::memory_order_relaxed) {
    auto& cell = *reinterpret_cast<uint16_t*>(const_cast<std::byte*>(at));
    return le16toh(std::atomic_ref<uint16_t>(cell).load(order));
}
uint32_t load32(const std::byte* at) {
    auto& cell = *reinterpret_cast<uint32_t*>(const_cast<std::byte*>(at));
    return le32toh(std::atomic_ref<uint32_t>(cell).load(std::memory_order_relaxed));
}
uint64_t load64(const std::byte* at) {
    auto& cell = *reinterpret_cast<uint64_t*>(const_cast<std::byte*>(at));
    return le64toh(std::atomic_ref<uint64_t>(cell).load(std::memory_order_relaxed));
}
void store16(std::byte* at, uint16_t value, std::memory_order order = std::memory_order_relaxed) {
    std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(at)).store(htole16(value), order);
}
void store32(std::byte* at, uint32_t value) {
    std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at))
        .store(htole32(value), std::memory_order_relaxed);
}

bool aligned(const std::byte* at, size_t alignment) {
    return reinterpret_cast<uintptr_t>(at) % alignment == 0;
}

uint16_t distance(uint16_t from, uint16_t to) {
    return static_cast<uint16_t>(to - from);
}

}  // namespace

Result<> Virtqueue::locate(const GuestMemory& memory, uint32_t size) {
    std::byte* const descriptors =
        memory.fromUser(addresses_.descriptors, uint64_t{kDescriptorBytes} * size);
    std::byte* const available = memory.fromUser(addresses_.available, 6 + uint64_t{2} * size);
    std::byte* const used = memory.fromUser(addresses_.used, 6 + uint64_t{kUsedEntryBytes} * size);
    if (descriptors == nullptr || available == nullptr || used == nullptr) {
        return fail(Code::kInvalidArgument, "virtqueue: not inside one memory region");
    }
    if (!aligned(descriptors, 16) || !aligned(available, 2) || !aligned(used, 4)) {
        return fail(Code::kInvalidArgument, "virtqueue: not aligned");
    }
    memory_ = &memory;
    descriptors_ = descriptors;
    available_ = available;
    used_ = used;
    return {};
}

Result<> Virtqueue::start(const GuestMemory& memory, uint32_t size, const RingAddresses& addresses,
                          uint16_t next_available, EventIndex event_index) {
    if (!std::has_single_bit(size) || size > kMaxSize) {
        return fail(Code::kInvalidArgument, "virtqueue: size " + std::to_string(size));
    }
    addresses_ = addresses;
    ARCA_CHECK(locate(memory, size));
    size_ = size;
    event_index_ = event_index;
    next_available_ = next_available;
    next_used_ = published_ = interrupted_ = load16(used_ + kIndexOffset);
    kicks_suppressed_ = false;
    defect_ = {};
    return {};
}

Result<> Virtqueue::relocate(const GuestMemory& memory) {
    return locate(memory, size_);
}

Virtqueue::Peek Virtqueue::broken(std::string_view why) {
    defect_ = why;
    return Peek::kBroken;
}

bool Virtqueue::ready() const {
    return running() && defect_.empty() &&
           load16(available_ + kIndexOffset, std::memory_order_acquire) != next_available_;
}

Virtqueue::Peek Virtqueue::peek(uint16_t ahead, std::vector<iovec>& parts, Chain& chain) {
    if (!defect_.empty()) return Peek::kBroken;
    if (!running()) return Peek::kNone;
    // Acquire: what the driver wrote before it moved the index is visible after this.
    const uint16_t offered =
        distance(next_available_, load16(available_ + kIndexOffset, std::memory_order_acquire));
    if (offered > size_) return broken("more chains available than the ring has places");
    if (ahead >= offered) return Peek::kNone;
    const auto slot = static_cast<uint16_t>(next_available_ + ahead) & (size_ - 1);
    const uint16_t head = load16(available_ + kEntriesOffset + 2 * size_t{slot});

    const size_t parts_before = parts.size();
    const auto give_up = [&](std::string_view why) {
        parts.resize(parts_before);
        return broken(why);
    };
    chain = {head, 0, 0};
    uint16_t index = head;
    // A loop in the chain ends at the bound like any other chain that is too long.
    for (size_t count = 0; count < kMaxChain && count < size_; ++count) {
        if (index >= size_) return give_up("descriptor index out of range");
        const std::byte* const descriptor = descriptors_ + kDescriptorBytes * index;
        const uint64_t address = load64(descriptor);
        const uint32_t length = load32(descriptor + 8);
        const uint16_t flags = load16(descriptor + 12);
        if ((flags & kDescriptorIndirect) != 0) return give_up("indirect descriptor");
        const bool writable = (flags & kDescriptorWrite) != 0;
        if (writable != (direction_ == Direction::kDeviceWrites)) {
            return give_up("buffer of the wrong direction");
        }
        if (!memory_->fromGuest(address, length, parts)) return give_up("buffer outside of memory");
        chain.bytes += length;
        if ((flags & kDescriptorNext) == 0) {
            if (chain.bytes < least_bytes_) return give_up("buffer too small");
            chain.parts = parts.size() - parts_before;
            return Peek::kChain;
        }
        index = load16(descriptor + 14);
    }
    return give_up("chain too long");
}

void Virtqueue::complete(const Chain& chain, uint32_t written) {
    std::byte* const entry = used_ + kEntriesOffset + kUsedEntryBytes * (next_used_ & (size_ - 1));
    store32(entry, chain.head);
    store32(entry + 4, written);
    ++next_used_;
    ++next_available_;
}

void Virtqueue::publish() {
    if (!running() || published_ == next_used_) return;
    // Release: the entries and the buffers are visible before the index is.
    store16(used_ + kIndexOffset, next_used_, std::memory_order_release);
    published_ = next_used_;
}

bool Virtqueue::wantsInterrupt() {
    if (!running() || interrupted_ == published_) return false;
    const uint16_t before = std::exchange(interrupted_, published_);
    // The driver writes its wish, then looks at the index; we wrote the index, now look at the
    // wish. Without a full barrier on both sides both could miss.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (event_index_ == EventIndex::kOff) {
        return (load16(available_) & kAvailableNoInterrupt) == 0;
    }
    const uint16_t wish = load16(available_ + kEntriesOffset + 2 * size_t{size_});
    return distance(wish, published_) - 1U < uint32_t{distance(before, published_)};
}

void Virtqueue::suppressKicks() {
    if (!running() || kicks_suppressed_) return;
    kicks_suppressed_ = true;
    // With event indices the old wish simply stays behind.
    if (event_index_ == EventIndex::kOff) store16(used_, kUsedNoNotify);
}

bool Virtqueue::armKicks() {
    if (!running()) return false;
    kicks_suppressed_ = false;
    if (event_index_ == EventIndex::kOff) {
        store16(used_, 0);
    } else {
        store16(used_ + kEntriesOffset + kUsedEntryBytes * size_t{size_}, next_available_);
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return ready();
}

}  // namespace arca::vsock
