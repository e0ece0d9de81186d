// What stands before a frame about the work that its sender has left to the network card.
#pragma once

#include <cstdint>
#include <span>

namespace arca::runtime {

// virtio's struct of 10 bytes, this machine's byte order. <linux/virtio_net.h> has it, and is no
// C++. Source: virtio 1.1, 5.1.6; packet(7), PACKET_VNET_HDR.
struct VnetHeader {
    static constexpr uint8_t kNeedsChecksum = 1;

    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t checksum_start;   // in the frame
    uint16_t checksum_offset;  // of the field, from there
};
static_assert(sizeof(VnetHeader) == 10);

// Completes the checksum that `header` says is still to be computed, if any. false: it lies outside
// the frame. A frame that was to be cut into segments stays whole: receivers take it as it is.
bool completeChecksum(const VnetHeader& header, std::span<char> frame);

}  // namespace arca::runtime
