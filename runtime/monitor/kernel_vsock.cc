#include "runtime/monitor/kernel_vsock.h"

#include <fcntl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include <cerrno>
#include <utility>

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

namespace {

constexpr uint32_t kFirstGuestCid = 3;  // below: hypervisor, local, host
constexpr uint32_t kGuestCids = 0x7fffffff;
constexpr int kTries = 64;
// VHOST_VSOCK_SET_GUEST_CID of <linux/vhost.h>, which is no C++.
constexpr unsigned long kSetGuestCid = _IOW(0xaf, 0x60, __u64);
constexpr char kDevice[] = "/dev/vhost-vsock";

Result<> openDevice(KernelVsock& vsock) {
    vsock.device = base::UniqueFd(::open(kDevice, O_RDWR | O_CLOEXEC));
    if (vsock.device.valid()) return {};
    return fail(Code::kUnsupported, std::string("open ") + kDevice + ": " + base::errnoText(errno),
                errno);
}

Result<> setCid(KernelVsock& vsock, uint64_t cid) {
    if (::ioctl(vsock.device.get(), kSetGuestCid, &cid) != 0) return failErrno("take a CID");
    vsock.cid = static_cast<uint32_t>(cid);
    return {};
}

}  // namespace

uint32_t randomNumber(uint32_t below) {
    uint32_t number = 0;
    if (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) return 0;
    return number % below;
}

Result<KernelVsock> takeKernelVsock() {
    KernelVsock vsock;
    ARCA_CHECK(openDevice(vsock));
    for (int i = 0; i < kTries; ++i) {
        auto taken = setCid(vsock, kFirstGuestCid + randomNumber(kGuestCids));
        if (taken) return vsock;
        if (taken.error().sysErrno() != EADDRINUSE) return fail(std::move(taken).error());
    }
    return fail(Code::kUnavailable, "no free CID");
}

Result<> reopen(KernelVsock& vsock) {
    ARCA_CHECK(openDevice(vsock));
    return setCid(vsock, vsock.cid);
}

}  // namespace arca::runtime
