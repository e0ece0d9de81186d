// A blocked interface is deaf to its own stack, and not to packet sockets.
#include "network/ingress.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <optional>

#include "base/namespaces_test.h"
#include "network/tap_device.h"

namespace arca::network {
namespace {

using base::Claims;
using base::inNamespaces;
using base::UniqueFd;

constexpr ssize_t kHeader = 14;  // bytes, of Ethernet

int ip(const std::string& arguments) {
    return ::system(("ip " + arguments + " >/dev/null 2>&1").c_str());
}

constexpr int kPatience = 10'000;  // ms; for what comes
constexpr int kEnough = 500;       // for what must not: a stack that hears takes microseconds

// Whether 192.0.2.1 at the other end, which listens on no port, says so within `patience` ms.
bool answers(int here, int there, int patience = kPatience) {
    if (::setns(there, CLONE_NEWNET) != 0) return false;
    const UniqueFd caller(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(9);
    (void)::inet_pton(AF_INET, "192.0.2.1", &address.sin_addr);
    (void)::connect(caller.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    pollfd entry{caller.get(), POLLOUT, 0};
    int error = 0;
    socklen_t size = sizeof error;
    const bool settled = ::poll(&entry, 1, patience) == 1 &&
                         ::getsockopt(caller.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0;
    return ::setns(here, CLONE_NEWNET) == 0 && settled && error == ECONNREFUSED;
}

// eth0 here, 192.0.2.1, with eth1 there, 192.0.2.2, at its other end.
struct Wire {
    UniqueFd here, there;
};

Wire makeWire(Claims& claims) {
    UniqueFd here(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    claims.check(::unshare(CLONE_NEWNET) == 0, "another namespace");
    UniqueFd there(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    (void)::setns(here.get(), CLONE_NEWNET);
    const std::string other = "/proc/self/fd/" + std::to_string(there.get());
    (void)::fcntl(there.get(), F_SETFD, 0);  // for ip(8)
    (void)ip("link add eth0 type veth peer name eth1 netns " + other);
    (void)ip("addr add 192.0.2.1/24 dev eth0");
    (void)ip("link set eth0 up");
    (void)::setns(there.get(), CLONE_NEWNET);
    (void)ip("addr add 192.0.2.2/24 dev eth1");
    (void)ip("link set eth1 up");
    (void)::setns(here.get(), CLONE_NEWNET);
    return {std::move(here), std::move(there)};
}

UniqueFd packetSocket(const char* interface) {
    UniqueFd packets(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(interface));
    const auto* raw = reinterpret_cast<sockaddr*>(&address);
    if (::bind(packets.get(), raw, sizeof address) != 0) packets.reset();
    return packets;
}

using Frame = std::array<unsigned char, 2048>;

bool isOurs(const Frame& frame) {
    return frame[12] == 0x88 && frame[13] == 0xb5;
}

bool isArpReply(const Frame& frame) {
    return frame[12] == 0x08 && frame[13] == 0x06 && frame[21] == 2;
}

bool isToPort4002(const Frame& frame) {
    return frame[12] == 0x08 && frame[13] == 0 && frame[23] == IPPROTO_UDP &&
           (frame[36] << 8 | frame[37]) == 4002;
}

// Whether such a frame is among those that come.
bool receives(int from, bool (*is_it)(const Frame&) = isOurs) {
    Frame frame{};
    pollfd entry{from, POLLIN, 0};
    while (::poll(&entry, 1, kPatience) == 1) {
        const ssize_t size = ::read(from, frame.data(), frame.size());
        if (size >= kHeader && is_it(frame)) return true;
    }
    return false;
}

sockaddr_in at(const char* address, uint16_t port) {
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(port);
    (void)::inet_pton(AF_INET, address, &place.sin_addr);
    return place;
}

UniqueFd datagramSocket(const char* address, uint16_t port) {
    UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in place = at(address, port);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place) != 0) {
        socket.reset();
    }
    return socket;
}

bool sends(const UniqueFd& socket, const char* address, uint16_t port) {
    const sockaddr_in place = at(address, port);
    return ::sendto(socket.get(), "hello", 5, 0, reinterpret_cast<const sockaddr*>(&place),
                    sizeof place) == 5;
}

bool isReadable(const UniqueFd& socket, int patience = kPatience) {
    pollfd entry{socket.get(), POLLIN, 0};
    return ::poll(&entry, 1, patience) == 1;
}

// Of what is redirected to `tap`.
void passes(Claims& claims, const Wire& wire, int tap) {
    const UniqueFd own = datagramSocket("192.0.2.1", 4000);
    (void)::setns(wire.there.get(), CLONE_NEWNET);
    const UniqueFd other = datagramSocket("192.0.2.2", 4001);
    (void)::setns(wire.here.get(), CLONE_NEWNET);
    claims.check(own.valid() && other.valid(), "sockets");
    claims.check(sends(own, "192.0.2.2", 4001), "a question");
    claims.check(isReadable(other), "which arrives: the answer of ARP has come through");
    claims.check(receives(tap, isArpReply), "on the other side too");
    claims.check(sends(other, "192.0.2.1", 4000), "its answer");
    claims.check(isReadable(own), "which comes to the socket that has asked");
    claims.check(sends(other, "192.0.2.1", 4002), "for nobody here");
    claims.check(receives(tap, isToPort4002), "which goes to the other side");
}

void redirects(Claims& claims) {
    const Wire wire = makeWire(claims);
    const auto tap = makeTap("t0", VnetHeader::kNo);
    claims.works(tap, "a TAP device");
    if (!tap) return;
    (void)ip("link set t0 up");
    auto in = IngressRule::redirect(::if_nametoindex("eth0"), ::if_nametoindex("t0"));
    auto out = IngressRule::redirect(::if_nametoindex("t0"), ::if_nametoindex("eth0"));
    claims.works(in, "eth0 to t0");
    claims.works(out, "t0 to eth0");
    (void)::setns(wire.there.get(), CLONE_NEWNET);
    const UniqueFd far = packetSocket("eth1");
    (void)::setns(wire.here.get(), CLONE_NEWNET);
    // To anybody, of a type for experiments.
    std::string text("\xff\xff\xff\xff\xff\xff\2\0\0\0\0\t\x88\xb5", kHeader);
    text.resize(60);
    claims.works(base::writeAll(tap->get(), text), "to the TAP");
    claims.check(receives(far.get()), "what comes in on t0 leaves over eth0");
    claims.works(base::writeAll(far.get(), text), "to eth1");
    claims.check(receives(tap->get()), "what comes in on eth0 leaves over t0");
    passes(claims, wire, tap->get());
    claims.check(!answers(wire.here.get(), wire.there.get(), kEnough), "nobody else hears it");
    in = IngressRule();
    claims.check(answers(wire.here.get(), wire.there.get()), "and without the rule it does");
}

void blocks(Claims& claims) {
    const auto [here, there] = makeWire(claims);
    claims.check(answers(here.get(), there.get()), "it answers before");

    const unsigned index = ::if_nametoindex("eth0");
    auto made = IngressRule::drop(index);
    claims.works(made, "block");
    if (!made) return;
    std::optional<IngressRule> block(std::move(*made));
    const UniqueFd packets = packetSocket("eth0");
    claims.check(packets.valid(), "a packet socket");
    claims.check(!answers(here.get(), there.get(), kEnough), "it does not answer while blocked");
    pollfd entry{packets.get(), POLLIN, 0};
    claims.check(::poll(&entry, 1, 0) == 1, "the packet socket has seen it");
    claims.works(IngressRule::drop(index), "what somebody left is replaced");
    claims.check(answers(here.get(), there.get()), "and goes with its owner");

    block.reset();
    auto again = IngressRule::drop(index);
    claims.works(again, "again");
    if (again) block.emplace(std::move(*again));
    claims.check(!answers(here.get(), there.get(), kEnough), "blocked again");
    (void)::setns(there.get(), CLONE_NEWNET);
    block.reset();
    (void)::setns(here.get(), CLONE_NEWNET);
    claims.check(answers(here.get(), there.get()), "it is taken away from another namespace");
    const auto none = IngressRule::drop(4711);
    claims.check(!none && none.error().message().find("4711") != std::string::npos,
                 "no such interface");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(network_ingress)

BOOST_AUTO_TEST_CASE(a_blocked_interface_is_deaf_to_its_own_stack_only) {
    if (!base::isRoot()) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(inNamespaces(blocks) == "");
}

BOOST_AUTO_TEST_CASE(two_interfaces_are_joined_by_a_rule_each) {
    if (!base::isRoot()) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(inNamespaces(redirects) == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::network
