#include "network/tap_device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/files.h"
#include "network/interface.h"

namespace arca::network {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr char kTunDevice[] = "/dev/net/tun";
constexpr int kVnetHeaderBytes = 10;

ifreq requestFor(const std::string& name) {
    ifreq request{};
    std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
    return request;
}

Result<> setUpVnetHeader(int device, const std::string& what) {
    const int size = kVnetHeaderBytes;
    if (::ioctl(device, TUNSETVNETHDRSZ, &size) != 0) return failErrno(what + ": TUNSETVNETHDRSZ");
    // Not UDP segmentation (Linux 6.2): the frames pass through the other side's kernel, which may
    // be an older one that refuses them.
    const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    if (::ioctl(device, TUNSETOFFLOAD, offloads) != 0) return failErrno(what + ": TUNSETOFFLOAD");
    return {};
}

}  // namespace

Result<UniqueFd> makeTap(const std::string& name, VnetHeader vnet_header) {
    ARCA_CHECK(checkInterfaceName(name));
    // The kernel takes it for a pattern.
    if (name.find('%') != std::string::npos) {
        return fail(Code::kInvalidArgument, "malformed interface name \"" + name + "\"");
    }
    const std::string what = "make TAP device " + name;
    if (::if_nametoindex(name.c_str()) != 0) {
        return fail(Code::kAlreadyExists, what + ": there is an interface of that name", EEXIST);
    }
    auto device = base::openAt(AT_FDCWD, kTunDevice, O_RDWR | O_NONBLOCK);
    if (!device) return fail(std::move(device).error().withContext(what));
    ifreq request = requestFor(name);
    unsigned flags = static_cast<unsigned>(IFF_TAP) | IFF_NO_PI | IFF_TUN_EXCL;
    if (vnet_header == VnetHeader::kYes) flags |= IFF_VNET_HDR;
    request.ifr_flags = static_cast<int16_t>(flags);
    if (::ioctl(device->get(), TUNSETIFF, &request) != 0) return failErrno(what);
    if (vnet_header == VnetHeader::kYes) ARCA_CHECK(setUpVnetHeader(device->get(), what));
    return device;
}

Result<std::string> macAddressOf(const std::string& interface) {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return failErrno("make a socket");
    ifreq request = requestFor(interface);
    if (::ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0) {
        return failErrno("read the MAC address of " + interface);
    }
    std::array<unsigned char, 6> mac{};
    std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
    std::array<char, 18> text{};
    (void)std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
                        mac[2], mac[3], mac[4], mac[5]);
    return std::string(text.data());
}

}  // namespace arca::network
