#include "runtime/monitor/packet_socket.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <sys/socket.h>

#include <utility>

namespace arca::runtime {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// What may wait for the guest: some 60 frames of 64 KiB, some thousand of 1500 bytes.
constexpr int kBufferBytes = 4 << 20;

Result<> switchOn(int fd, int option, const char* what) {
    const int on = 1;
    if (::setsockopt(fd, SOL_PACKET, option, &on, sizeof on) == 0) return {};
    return failErrno(what);
}

}  // namespace

Result<PacketSocket> openPacketSocket(unsigned index) {
    // No protocol yet: until it is bound it sees nothing, of any interface.
    UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return failErrno("make a packet socket");
    ARCA_CHECK(switchOn(fd.get(), PACKET_VNET_HDR, "ask for offload headers of packets"));
    ARCA_CHECK(switchOn(fd.get(), PACKET_IGNORE_OUTGOING, "ignore packets of this host"));
    for (const int option : {SO_RCVBUFFORCE, SO_SNDBUFFORCE}) {
        if (::setsockopt(fd.get(), SOL_SOCKET, option, &kBufferBytes, sizeof kBufferBytes) != 0) {
            return failErrno("enlarge a packet socket's buffer");
        }
    }
    // First deaf, then listening: nothing is heard by both.
    ARCA_TRY(network::IngressRule block, network::IngressRule::drop(index));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(index);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return failErrno("bind a packet socket");
    }
    return PacketSocket{std::move(fd), std::move(block)};
}

}  // namespace arca::runtime
