// The frames of one interface: packet(7) with offload headers, and nobody else hears what comes in.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"
#include "network/ingress.h"

namespace arca::runtime {

struct PacketSocket {
    base::UniqueFd fd;           // reads and writes a virtio_net_hdr (10 bytes) and a frame at once
    network::IngressRule block;  // lives as long
};

// Of the interface with this index of the calling thread's network namespace. Frames that this
// kernel sends over it by itself are not among those that are read.
base::Result<PacketSocket> openPacketSocket(unsigned index);

}  // namespace arca::runtime
