// For tests and the fuzzer: a guest driver over plain memory, well-behaved unless told otherwise.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vsock/guest_memory.h"
#include "vsock/packet.h"
#include "vsock/virtqueue.h"

namespace arca::vsock::testing {

// One ring as its driver sees it: where the parts are in memory, and what was done so far.
struct FakeRing {
    size_t descriptors;
    size_t available;
    size_t used;
    uint16_t size;
    uint16_t next_descriptor = 0;
    uint16_t next_available = 0;
    uint16_t last_used = 0;
};

// A packet as the guest got it.
struct Packet {
    PacketHeader header;
    std::string payload;
};

class FakeGuest {
 public:
    static constexpr uint64_t kGuestBase = 0x1000'0000;
    static constexpr uint64_t kUserBase = 0x7f12'0000'0000;
    static constexpr uint64_t kCid = 3;
    static constexpr uint16_t kNext = 1;
    static constexpr uint16_t kWrite = 2;
    static constexpr uint16_t kIndirect = 4;

    // `ring_size`: a power of two up to 256. The first 64 KiB hold the rings, the rest buffers.
    explicit FakeGuest(uint16_t ring_size = 16, size_t memory_bytes = size_t{1} << 20U)
        : storage_(new (std::align_val_t(4096)) std::byte[memory_bytes]()),
          bytes_(memory_bytes),
          to_guest{0, 0x2000, 0x3000, ring_size},
          from_guest{0x8000, 0xa000, 0xb000, ring_size} {}
    FakeGuest(const FakeGuest&) = delete;
    FakeGuest& operator=(const FakeGuest&) = delete;
    ~FakeGuest() { ::operator delete[](storage_, std::align_val_t(4096)); }

    [[nodiscard]] std::span<std::byte> memory() { return {storage_, bytes_}; }
    [[nodiscard]] GuestMemory table() { return GuestMemory::over(memory(), kGuestBase, kUserBase); }
    [[nodiscard]] static RingAddresses addresses(const FakeRing& ring) {
        return {kUserBase + ring.descriptors, kUserBase + ring.available, kUserBase + ring.used};
    }

    template <typename T>
    void put(size_t offset, T value) {
        std::memcpy(storage_ + offset, &value, sizeof value);
    }
    template <typename T>
    [[nodiscard]] T get(size_t offset) const {
        T value;
        std::memcpy(&value, storage_ + offset, sizeof value);
        return value;
    }

    void writeDescriptor(const FakeRing& ring, uint16_t index, uint64_t address, uint32_t length,
                         uint16_t flags, uint16_t next) {
        const size_t at = ring.descriptors + size_t{16} * index;
        put(at, address);
        put(at + 8, length);
        put(at + 12, flags);
        put(at + 14, next);
    }
    // Makes `head` available.
    void offer(FakeRing& ring, uint16_t head) {
        put(ring.available + 4 + size_t{2} * (ring.next_available % ring.size), head);
        ++ring.next_available;
        put(ring.available + 2, ring.next_available);
    }
    [[nodiscard]] uint16_t usedIndex(const FakeRing& ring) const {
        return get<uint16_t>(ring.used + 2);
    }
    // The next chain that the device gave back: {head, bytes written}.
    std::optional<std::pair<uint32_t, uint32_t>> takeUsed(FakeRing& ring) {
        if (usedIndex(ring) == ring.last_used) return std::nullopt;
        const size_t at = ring.used + 4 + size_t{8} * (ring.last_used % ring.size);
        ++ring.last_used;
        return std::pair(get<uint32_t>(at), get<uint32_t>(at + 4));
    }
    [[nodiscard]] bool noNotify(const FakeRing& ring) const {
        return get<uint16_t>(ring.used) == 1;
    }

    // Offers one buffer for a header and up to `payload` bytes, as two descriptors like Linux 6.1.
    // The two lie at places of their own for each pair.
    void postBuffer(uint32_t payload = 4096) {
        const uint16_t first = takeDescriptors(to_guest, 2);
        const auto second = static_cast<uint16_t>((first + 1) % to_guest.size);
        const size_t at = bufferOffset(first);
        writeDescriptor(to_guest, first, kGuestBase + at, kHeaderBytes, kNext | kWrite, second);
        writeDescriptor(to_guest, second, kGuestBase + at + 64, payload, kWrite, 0);
        offer(to_guest, first);
    }
    void postBuffers(int count, uint32_t payload = 4096) {
        for (int i = 0; i < count; ++i) postBuffer(payload);
    }
    // Everything the device wrote since the last call. Buffers are not offered again.
    std::vector<Packet> receive() {
        std::vector<Packet> packets;
        while (const auto used = takeUsed(to_guest)) {
            const size_t at = bufferOffset(static_cast<uint16_t>(used->first));
            HeaderBytes bytes;
            std::memcpy(bytes.data(), storage_ + at, bytes.size());
            Packet packet{decodeHeader(bytes), {}};
            packet.payload.assign(reinterpret_cast<const char*>(storage_ + at + 64),
                                  used->second - kHeaderBytes);
            packets.push_back(std::move(packet));
        }
        return packets;
    }

    // Sends a packet as header and payload descriptors.
    void send(const PacketHeader& header, std::string_view payload = {}) {
        const bool has_payload = !payload.empty();
        const uint16_t first = takeDescriptors(from_guest, has_payload ? 2 : 1);
        const auto second = static_cast<uint16_t>((first + 1) % from_guest.size);
        const size_t at = bytes_ / 2 + bufferOffset(first);
        const HeaderBytes bytes = encodeHeader(header);
        std::memcpy(storage_ + at, bytes.data(), bytes.size());
        std::copy(payload.begin(), payload.end(), reinterpret_cast<char*>(storage_ + at + 64));
        writeDescriptor(from_guest, first, kGuestBase + at, kHeaderBytes,
                        has_payload ? kNext : uint16_t{0}, second);
        if (has_payload) {
            writeDescriptor(from_guest, second, kGuestBase + at + 64,
                            static_cast<uint32_t>(payload.size()), 0, 0);
        }
        offer(from_guest, first);
    }
    // A header of this guest to a host port.
    [[nodiscard]] static PacketHeader header(Op op, uint32_t guest_port, uint32_t host_port) {
        PacketHeader out;
        out.source_cid = kCid;
        out.target_cid = kHostCid;
        out.source_port = guest_port;
        out.target_port = host_port;
        out.op = op;
        out.buffer_space = 65536;
        return out;
    }
    void sendData(uint32_t guest_port, uint32_t host_port, std::string_view payload) {
        PacketHeader out = header(Op::kData, guest_port, host_port);
        out.length = static_cast<uint32_t>(payload.size());
        send(out, payload);
    }

 private:
    uint16_t takeDescriptors(FakeRing& ring, uint16_t count) {
        const uint16_t first = ring.next_descriptor;
        ring.next_descriptor = static_cast<uint16_t>((first + count) % ring.size);
        return first;
    }
    // 16 KiB for each descriptor number; the two rings use the two halves of memory.
    [[nodiscard]] size_t bufferOffset(uint16_t descriptor) const {
        const size_t places = (bytes_ / 2 - 0x10000) / 0x4000;
        return 0x10000 + 0x4000 * (descriptor % places);
    }

    std::byte* storage_;
    size_t bytes_;

 public:
    FakeRing to_guest;
    FakeRing from_guest;
};

}  // namespace arca::vsock::testing
