// What is read in one network namespace and set in another is the same.
#include "network/snapshot.h"

#include <sched.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>

#include "base/namespaces_test.h"

namespace arca::network {
namespace {

using base::Claims;
using base::inNamespaces;

int ip(const std::string& arguments) {
    return ::system(("ip " + arguments + " >/dev/null 2>&1").c_str());
}

bool has(const std::vector<std::string>& all, const std::string& one) {
    return std::find(all.begin(), all.end(), one) != all.end();
}

const Route* routeTo(const Interface& interface, const std::string& destination) {
    for (const Route& route : interface.routes) {
        if (route.destination == destination) return &route;
    }
    return nullptr;
}

void check(Claims& claims, const Interface& eth0) {
    claims.check(eth0.mac == "02:00:00:00:00:07", "MAC address " + eth0.mac);
    claims.check(eth0.mtu == 9000, "MTU");
    claims.check(eth0.up, "up");
    claims.check(eth0.addresses.size() == 3, "three addresses, no link-local one");
    claims.check(has(eth0.addresses, "192.0.2.5/24"), "IPv4");
    claims.check(has(eth0.addresses, "198.51.100.7/32"), "IPv4 of one host");
    claims.check(has(eth0.addresses, "2001:db8::5/64"), "IPv6");
    claims.check(eth0.routes.size() == 4, "four routes, none of the kernel's own");
    const Route* v4 = routeTo(eth0, "0.0.0.0/0");
    claims.check(v4 != nullptr && v4->gateway == "169.254.1.1" && v4->metric == 50 &&
                     v4->source == "192.0.2.5",
                 "the default route");
    const Route* v6 = routeTo(eth0, "::/0");
    claims.check(v6 != nullptr && v6->gateway == "2001:db8::1", "IPv6's default route");
    const Route* link = routeTo(eth0, "169.254.1.1/32");
    claims.check(link != nullptr && link->gateway.empty(), "the way to the gateway");
    const Route* onlink = routeTo(eth0, "203.0.113.0/24");
    claims.check(onlink != nullptr && onlink->onlink, "a gateway on the link");
    claims.check(eth0.neighbours.size() == 1 && eth0.neighbours[0].address == "192.0.2.9" &&
                     eth0.neighbours[0].mac == "02:00:00:00:00:09",
                 "the permanent neighbour");
}

void roundTrip(Claims& claims) {
    (void)ip("link set lo up");
    (void)ip("link add eth0 address 02:00:00:00:00:07 mtu 9000 type veth peer name peer0");
    (void)ip("link set peer0 up");
    (void)ip("addr add 192.0.2.5/24 dev eth0");
    (void)ip("addr add 198.51.100.7/32 dev eth0");
    (void)ip("-6 addr add 2001:db8::5/64 dev eth0 nodad");
    (void)ip("link set eth0 up");
    (void)ip("route add 169.254.1.1/32 dev eth0 scope link");
    (void)ip("route add default via 169.254.1.1 dev eth0 src 192.0.2.5 metric 50");
    (void)ip("route add 203.0.113.0/24 via 203.0.113.1 dev eth0 onlink");
    (void)ip("-6 route add default via 2001:db8::1 dev eth0");
    (void)ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    const auto read = readInterfaces();
    claims.works(read, "read");
    if (!read) return;
    const auto eth0 = std::find_if(read->begin(), read->end(),
                                   [](const Interface& one) { return one.name == "eth0"; });
    claims.check(eth0 != read->end() && eth0->kind == "veth", "it is found");
    claims.check(read->size() == 2, "the loopback is left out");
    if (eth0 == read->end()) return;
    check(claims, *eth0);

    claims.check(::unshare(CLONE_NEWNET) == 0, "another namespace");
    (void)ip("link add eth0 type veth peer name peer0");
    (void)ip("link set peer0 up");
    claims.works(configure(*eth0), "set");
    const auto copy = readInterfaces();
    claims.works(copy, "read again");
    if (!copy) return;
    const auto again = std::find_if(copy->begin(), copy->end(),
                                    [](const Interface& one) { return one.name == "eth0"; });
    if (again != copy->end()) check(claims, *again);
    claims.works(configure(*eth0), "set what is set");
}

void refusals(Claims& claims) {
    (void)ip("link add eth0 type veth peer name peer0");
    claims.check(!configure({.name = "eth1"}), "no such interface");
    claims.check(!configure({.name = "../eth0"}), "no name");
    claims.check(!configure({.name = "eth0", .mac = "02:00"}), "a short MAC address");
    claims.check(!configure({.name = "eth0", .addresses = {"192.0.2.5"}}), "no prefix length");
    claims.check(!configure({.name = "eth0", .routes = {{.destination = "x"}}}), "no destination");
    claims.check(
        !configure({.name = "eth0", .neighbours = {{.address = "192.0.2.5", .mac = "nonsense"}}}),
        "no MAC address");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(network_snapshot)

BOOST_AUTO_TEST_CASE(what_is_read_in_one_namespace_is_set_in_another) {
    if (!base::isRoot()) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(inNamespaces(roundTrip) == "");
}

BOOST_AUTO_TEST_CASE(what_makes_no_sense_is_refused) {
    if (!base::isRoot()) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(inNamespaces(refusals) == "");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::network
