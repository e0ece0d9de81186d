#include "vmexec/network.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "base/unique_fd.h"

namespace arca::vmexec {

using base::failErrno;
using base::Result;
using base::UniqueFd;

Result<> bringUpLoopback() {
    // Any socket takes interface requests; this family is there in every kernel.
    const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return failErrno("make a socket");
    ifreq request{};
    std::memcpy(request.ifr_name, "lo", sizeof "lo");
    if (::ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0) return failErrno("read flags of lo");
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0) return failErrno("set lo up");
    return {};
}

}  // namespace arca::vmexec
