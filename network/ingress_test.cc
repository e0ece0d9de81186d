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

#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <optional>

#include "base/namespaces_test.h"

namespace arca::network {
namespace {

using base::Claims;
using base::inNamespaces;
using base::UniqueFd;

int ip(const std::string& arguments) {
    return ::system(("ip " + arguments + " >/dev/null 2>&1").c_str());
}

// Whether 192.0.2.1 at the other end, which listens on no port, says so.
bool answers(int here, int there) {
    if (::setns(there, CLONE_NEWNET) != 0) return false;
    const UniqueFd caller(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(9);
    (void)::inet_pton(AF_INET, "192.0.2.1", &address.sin_addr);
    (void)::connect(caller.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    pollfd entry{caller.get(), POLLOUT, 0};
    constexpr int kPatience = 500;  // ms; the answer of a stack that hears takes microseconds
    int error = 0;
    socklen_t size = sizeof error;
    const bool settled = ::poll(&entry, 1, kPatience) == 1 &&
                         ::getsockopt(caller.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0;
    return ::setns(here, CLONE_NEWNET) == 0 && settled && error == ECONNREFUSED;
}

void blocks(Claims& claims) {
    const UniqueFd here(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    claims.check(::unshare(CLONE_NEWNET) == 0, "another namespace");
    const UniqueFd there(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
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
    claims.check(answers(here.get(), there.get()), "it answers before");

    const unsigned index = ::if_nametoindex("eth0");
    auto made = IngressBlock::make(index);
    claims.works(made, "block");
    if (!made) return;
    std::optional<IngressBlock> block(std::move(*made));
    const UniqueFd packets(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(index);
    claims.check(::bind(packets.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
                 "a packet socket");
    claims.check(!answers(here.get(), there.get()), "it does not answer while blocked");
    pollfd entry{packets.get(), POLLIN, 0};
    claims.check(::poll(&entry, 1, 0) == 1, "the packet socket has seen it");
    claims.works(IngressBlock::make(index), "what somebody left is replaced");
    claims.check(answers(here.get(), there.get()), "and goes with its owner");

    block.reset();
    auto again = IngressBlock::make(index);
    claims.works(again, "again");
    if (again) block.emplace(std::move(*again));
    claims.check(!answers(here.get(), there.get()), "blocked again");
    (void)::setns(there.get(), CLONE_NEWNET);
    block.reset();
    (void)::setns(here.get(), CLONE_NEWNET);
    claims.check(answers(here.get(), there.get()), "it is taken away from another namespace");
    const auto none = IngressBlock::make(4711);
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

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::network
