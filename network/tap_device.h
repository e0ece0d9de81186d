// A TAP device: an Ethernet interface whose other end is a descriptor.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::network {

enum class VnetHeader { kNo, kYes };

// Makes the interface `name`, down and with a MAC address that the kernel has drawn, in the calling
// thread's network namespace. Each read(2) of the descriptor, which does not block, gives a frame
// that left by it, each write(2) is a frame that comes in. The interface goes with the descriptor.
//
// kYes: frames begin with a virtio_net_hdr of 10 bytes, and the kernel may give large ones
// (TCP segmentation) and such without checksum; see ethernet offloads in tun.rst of the kernel.
// kAlreadyExists when there is an interface of that name, of whatever kind.
base::Result<base::UniqueFd> makeTap(const std::string& name, VnetHeader vnet_header);

// Of an interface in the calling thread's network namespace: "aa:bb:cc:dd:ee:ff".
base::Result<std::string> macAddressOf(const std::string& interface);

}  // namespace arca::network
