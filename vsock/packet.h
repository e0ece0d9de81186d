// The header in front of every virtio-vsock packet: numbers and layout.
//
// Source: VIRTIO 1.2, 5.10.6 "Device Operation". All fields are little-endian on the ring. Used by
// everything in this folder.
#pragma once

#include <endian.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace arca::vsock {

// The host's context id; guests have 3 and up.
inline constexpr uint64_t kHostCid = 2;
inline constexpr uint64_t kFirstGuestCid = 3;

inline constexpr uint16_t kTypeStream = 1;

enum class Op : uint16_t {
    kRequest = 1,
    kResponse = 2,
    kReset = 3,
    kShutdown = 4,
    kData = 5,
    kCreditUpdate = 6,
    kCreditRequest = 7,
};

// Flags of kShutdown: what the sender of the packet will no longer do.
inline constexpr uint32_t kNoMoreReceive = 1;
inline constexpr uint32_t kNoMoreSend = 2;
inline constexpr uint32_t kNoMoreAtAll = kNoMoreReceive | kNoMoreSend;

struct PacketHeader {
    uint64_t source_cid = 0;
    uint64_t target_cid = 0;
    uint32_t source_port = 0;
    uint32_t target_port = 0;
    uint32_t length = 0;  // bytes of payload after the header
    uint16_t type = kTypeStream;
    Op op = Op::kReset;  // as the guest sent it: may be a number without a name
    uint32_t flags = 0;
    uint32_t buffer_space = 0;     // `buf_alloc`: what the sender's receive buffer holds in all
    uint32_t forwarded_bytes = 0;  // `fwd_cnt`: what has left that buffer, modulo 2^32
};

inline constexpr size_t kHeaderBytes = 44;
using HeaderBytes = std::array<std::byte, kHeaderBytes>;

namespace detail {

// The fields as they lie on the ring; host byte order until encode/decode turn them.
struct [[gnu::packed]] WireHeader {
    uint64_t source_cid;
    uint64_t target_cid;
    uint32_t source_port;
    uint32_t target_port;
    uint32_t length;
    uint16_t type;
    uint16_t op;
    uint32_t flags;
    uint32_t buffer_space;
    uint32_t forwarded_bytes;
};
static_assert(sizeof(WireHeader) == kHeaderBytes);

}  // namespace detail

inline HeaderBytes encodeHeader(const PacketHeader& header) {
    detail::WireHeader wire{};
    wire.source_cid = htole64(header.source_cid);
    wire.target_cid = htole64(header.target_cid);
    wire.source_port = htole32(header.source_port);
    wire.target_port = htole32(header.target_port);
    wire.length = htole32(header.length);
    wire.type = htole16(header.type);
    wire.op = htole16(static_cast<uint16_t>(header.op));
    wire.flags = htole32(header.flags);
    wire.buffer_space = htole32(header.buffer_space);
    wire.forwarded_bytes = htole32(header.forwarded_bytes);
    HeaderBytes bytes;
    std::memcpy(bytes.data(), &wire, sizeof wire);
    return bytes;
}

inline PacketHeader decodeHeader(const HeaderBytes& bytes) {
    detail::WireHeader wire;
    std::memcpy(&wire, bytes.data(), sizeof wire);
    PacketHeader header;
    header.source_cid = le64toh(wire.source_cid);
    header.target_cid = le64toh(wire.target_cid);
    header.source_port = le32toh(wire.source_port);
    header.target_port = le32toh(wire.target_port);
    header.length = le32toh(wire.length);
    header.type = le16toh(wire.type);
    header.op = static_cast<Op>(le16toh(wire.op));
    header.flags = le32toh(wire.flags);
    header.buffer_space = le32toh(wire.buffer_space);
    header.forwarded_bytes = le32toh(wire.forwarded_bytes);
    return header;
}

}  // namespace arca::vsock
