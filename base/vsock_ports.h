// Which ports of AF_VSOCK are listened on, by the kernel's word: no connection is made.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace arca::base {

// Whether a stream socket of this machine listens on `port`. kUnsupported when the kernel has no
// CONFIG_VSOCKETS_DIAG, or its module is not loaded. Source: sock_diag(7), linux/vm_sockets_diag.h.
Result<bool> isVsockPortListened(uint32_t port);

}  // namespace arca::base
