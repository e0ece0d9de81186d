// The kernel's vsock device for guests: /dev/vhost-vsock, with a CID of this machine's for one.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

struct KernelVsock {
    base::UniqueFd device;  // holds the CID for as long as it is open
    uint32_t cid = 0;
};

// Opens the device and takes a CID that nobody has. kUnsupported when this kernel has no such
// device or this user may not use it.
base::Result<KernelVsock> takeKernelVsock();

// Opens the device anew with the same CID: the kernel binds an open one to the process that used it
// first, even after that has ended.
base::Result<> reopen(KernelVsock& vsock);

// A number that no other sandbox is likely to begin with: ports of vsock are the whole machine's.
uint32_t randomNumber(uint32_t below);

}  // namespace arca::runtime
