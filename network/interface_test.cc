// Links, addresses and routes, in a network namespace of the test's own.
#include "network/interface.h"

#include <boost/test/unit_test.hpp>
#include <cstdio>
#include <memory>

#include "base/namespaces_test.h"

namespace arca::network {
namespace {

using base::Claims;
using base::Code;
using base::inNamespaces;
using base::isRoot;

// What ip(8) says: an eye of its own on what was done.
std::string ip(const std::string& arguments) {
    struct Close {
        void operator()(FILE* file) const { (void)::pclose(file); }
    };
    const std::unique_ptr<FILE, Close> pipe(::popen(("ip " + arguments + " 2>&1").c_str(), "r"));
    std::string out;
    char buffer[256];
    while (pipe && std::fgets(buffer, sizeof buffer, pipe.get()) != nullptr) out += buffer;
    return out;
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

// d0, with something at its other end.
void addPair() {
    (void)ip("link add d0 type veth peer name d1");
    (void)ip("link set d1 up");
}

void links(Claims& claims) {
    addPair();
    (void)ip("link set d0 arp off");
    claims.works(setLink("lo", true, std::nullopt), "lo up");
    claims.check(has(ip("link show lo"), "UP"), "lo is up");
    claims.works(setLink("d0", true, 1400), "up with mtu");
    const std::string shown = ip("link show d0");
    claims.check(has(shown, "mtu 1400") && has(shown, ",UP"), shown);
    claims.check(has(shown, "NOARP"), "other flags stay");
    claims.works(setLink("d0", false, std::nullopt), "down");
    claims.check(!has(ip("link show d0"), ",UP"), "it is down");
    claims.check(!setLink("d0", true, 1), "an impossible mtu");
    const auto wrong = setLink("d0", true, 1);
    claims.check(!wrong && has(wrong.error().message(), "mtu less than device minimum"),
                 "the kernel's own words: " + wrong.error().message());
    const auto none = setLink("nosuch", true, std::nullopt);
    claims.check(!none && none.error().message() == "interface nosuch: no such device",
                 "a missing one");
    for (const char* name : {"", "..", "a/b", "a b", "0123456789abcdef"}) {
        const auto bad = setLink(name, true, std::nullopt);
        claims.check(!bad && bad.error().code() == Code::kInvalidArgument,
                     std::string("name ") + name);
    }
}

void addresses(Claims& claims) {
    addPair();
    (void)ip("link set d0 up");
    claims.works(addAddress("d0", "192.0.2.5/24", ""), "IPv4");
    const std::string v4 = ip("-4 addr show dev d0");
    claims.check(has(v4, "inet 192.0.2.5/24 scope global d0"), v4);
    const auto again = addAddress("d0", "192.0.2.5/24", "");
    claims.check(!again && has(again.error().message(), "file exists"), "twice");
    claims.works(addAddress("d0", "192.0.2.6/32", "2001:db8::5/64"), "both");
    const std::string v6 = ip("-6 addr show dev d0");
    claims.check(has(v6, "inet6 2001:db8::5/64") && has(v6, "nodad"), v6);
    for (const char* bad : {"", "192.0.2.7", "192.0.2.7/33", "192.0.2/24", "x/1", "2001:db8::1/64",
                            "192.0.2.7/-1", "192.0.2.7/24/3"}) {
        const auto added = addAddress("d0", bad, "");
        claims.check(!added && added.error().code() == Code::kInvalidArgument, bad);
    }
    // The second is read before the first is added.
    claims.check(!addAddress("d0", "192.0.2.9/24", "nonsense/64"), "a malformed IPv6");
    claims.check(!has(ip("addr show dev d0"), "192.0.2.9"), "nothing was added");
}

void routes(Claims& claims) {
    addPair();
    (void)ip("link set d0 up");
    (void)ip("addr add 192.0.2.5/24 dev d0");
    (void)ip("-6 addr add 2001:db8::5/64 dev d0 nodad");
    claims.works(addLinkRoute("d0", {.ipv4_destination = "198.51.100.1/32",
                                     .ipv4_source = "192.0.2.5",
                                     .ipv6_destination = "2001:db8:1::/64",
                                     .ipv6_source = ""}),
                 "link routes");
    const std::string v4 = ip("route show");
    claims.check(has(v4, "198.51.100.1 dev d0 proto kernel scope link src 192.0.2.5"), v4);
    const std::string v6 = ip("-6 route show");
    claims.check(has(v6, "2001:db8:1::/64 dev d0 proto static"), v6);
    claims.works(addDefaultRoute("d0", "198.51.100.1", "2001:db8::1"), "default routes");
    claims.check(has(ip("route show"), "default via 198.51.100.1 dev d0 proto boot") ||
                     has(ip("route show"), "default via 198.51.100.1 dev d0"),
                 ip("route show"));
    claims.check(has(ip("-6 route show"), "default via 2001:db8::1 dev d0"), ip("-6 route show"));
    const auto again = addDefaultRoute("d0", "198.51.100.1", "");
    claims.check(!again && has(again.error().message(), "file exists"), "twice");
    (void)ip("route del default");
    claims.works(addDefaultRoute("d0", "", ""), "without a gateway");
    claims.check(has(ip("route show"), "default dev d0") && has(ip("route show"), "scope link"),
                 ip("route show"));
    (void)ip("route del default");
    (void)ip("-6 route del default");
    claims.works(addDefaultRoute("d0", "", "2001:db8::1"), "IPv6 alone");
    claims.check(!has(ip("-4 route show"), "default"), "leaves IPv4 alone");
    claims.check(addLinkRoute("d0", {}).error().code() == Code::kInvalidArgument, "neither");
    claims.check(addDefaultRoute("d0", "1.2.3.4/8", "").error().code() == Code::kInvalidArgument,
                 "a gateway with a prefix");
    const auto unreachable = addDefaultRoute("d0", "203.0.113.1", "");
    claims.check(!unreachable && has(unreachable.error().message(), "Nexthop has invalid gateway"),
                 "the kernel's own words");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(network)

void ipv4Removed(Claims& claims) {
    addPair();
    (void)ip("link set d0 up");
    for (const char* words :
         {"addr add 192.0.2.5/24 dev d0", "addr add 192.0.2.6/24 dev d0",
          "addr add 198.51.100.5/32 dev d0", "addr add 203.0.113.5/24 dev d1",
          "addr add 2001:db8::5/64 dev d0 nodad", "route add default via 192.0.2.1",
          "route add 198.51.100.0/24 dev d0"}) {
        claims.check(ip(words).empty(), words);
    }
    claims.works(removeIpv4("d0"), "removed");
    claims.check(ip("-4 addr show dev d0").empty(), ip("-4 addr show dev d0"));
    claims.check(ip("-4 route show dev d0").empty(), ip("-4 route show dev d0"));
    claims.check(has(ip("-6 addr show dev d0"), "2001:db8::5/64"), "IPv6 stays");
    claims.check(has(ip("-4 addr show dev d1"), "203.0.113.5/24"), "other interfaces stay");
    claims.check(has(ip("-4 route show dev d1"), "203.0.113.0/24"), "and their routes");
    claims.works(removeIpv4("d0"), "nothing to remove is fine");
    claims.check(!removeIpv4("nosuch"), "a missing one");
}

#define ARCA_NETWORK_CASE(name, body)                  \
    BOOST_AUTO_TEST_CASE(name) {                       \
        if (!isRoot()) {                               \
            BOOST_TEST_MESSAGE("skipped: needs root"); \
            return;                                    \
        }                                              \
        BOOST_TEST(inNamespaces(body) == "");          \
    }
ARCA_NETWORK_CASE(links_go_up_and_down, links)
ARCA_NETWORK_CASE(addresses_are_added, addresses)
ARCA_NETWORK_CASE(ipv4_is_removed_and_nothing_else, ipv4Removed)
ARCA_NETWORK_CASE(routes_are_added, routes)

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::network
