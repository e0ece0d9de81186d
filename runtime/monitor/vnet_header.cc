#include "runtime/monitor/vnet_header.h"

#include <cstdint>

namespace arca::runtime {

namespace {

// The Internet checksum's sum over the bytes, as if a zero byte made them even (RFC 1071).
uint32_t sumOf(std::span<const char> bytes) {
    constexpr unsigned kByte = 8;
    uint64_t sum = 0;
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
        sum += static_cast<uint32_t>(static_cast<uint8_t>(bytes[i]) << kByte) |
               static_cast<uint8_t>(bytes[i + 1]);
    }
    if (bytes.size() % 2 != 0) {
        sum += static_cast<uint32_t>(static_cast<uint8_t>(bytes.back()) << kByte);
    }
    constexpr unsigned kHalf = 16;
    while (sum >> kHalf != 0) sum = (sum & 0xffffU) + (sum >> kHalf);
    return static_cast<uint32_t>(sum);
}

}  // namespace

bool completeChecksum(const VnetHeader& header, std::span<char> frame) {
    if ((header.flags & VnetHeader::kNeedsChecksum) == 0) return true;
    const size_t start = header.checksum_start;
    const size_t field = start + header.checksum_offset;
    if (start > frame.size() || field + 2 > frame.size()) return false;
    // The field holds the sum over the pseudo header already.
    auto sum = static_cast<uint16_t>(~sumOf(frame.subspan(start)));
    if (sum == 0) sum = 0xffff;  // which is the same number, and to UDP does not mean "none"
    constexpr unsigned kByte = 8;
    frame[field] = static_cast<char>(sum >> kByte);
    frame[field + 1] = static_cast<char>(sum & 0xffU);
    return true;
}

}  // namespace arca::runtime
