#include "network/snapshot.h"

#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netlink/route/nexthop.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/strings.h"
#include "network/interface.h"
#include "network/rtnl.h"

namespace arca::network {

using base::failErrno;
using base::Result;

namespace {

constexpr size_t kAddressText = 64;

std::string textOf(nl_addr* address) {
    if (address == nullptr) return {};
    std::array<char, kAddressText> buffer{};
    return nl_addr2str(address, buffer.data(), buffer.size());
}

// With the prefix length even where it is that of one host, or 0.
std::string prefixOf(nl_addr* address, int family) {
    if (address == nullptr || nl_addr_get_len(address) == 0) {
        return family == AF_INET6 ? "::/0" : "0.0.0.0/0";
    }
    const std::string text = textOf(address);
    if (text.find('/') != std::string::npos) return text;
    return text + "/" + std::to_string(nl_addr_get_prefixlen(address));
}

template <typename Object, typename Take>
Result<> forEachObject(nl_cache* raw, int error, const char* what, Take take) {
    if (error < 0) return failNetlink(what, error);
    const Cache cache(raw);
    for (nl_object* object = nl_cache_get_first(raw); object != nullptr;
         object = nl_cache_get_next(object)) {
        take(reinterpret_cast<Object*>(object));
    }
    return {};
}

Interface* find(std::vector<Interface>& interfaces, int index) {
    const auto found = std::find_if(
        interfaces.begin(), interfaces.end(),
        [&](const Interface& one) { return one.index == static_cast<unsigned>(index); });
    return found == interfaces.end() ? nullptr : &*found;
}

Result<> readLinks(nl_sock* socket, std::vector<Interface>& into) {
    nl_cache* cache = nullptr;
    const int error = rtnl_link_alloc_cache(socket, AF_UNSPEC, &cache);
    return forEachObject<rtnl_link>(cache, error, "read interfaces", [&](rtnl_link* link) {
        if (rtnl_link_get_arptype(link) != ARPHRD_ETHER) return;
        Interface one;
        one.name = rtnl_link_get_name(link);
        one.index = static_cast<unsigned>(rtnl_link_get_ifindex(link));
        if (const char* kind = rtnl_link_get_type(link)) one.kind = kind;
        one.mac = textOf(rtnl_link_get_addr(link));
        one.mtu = rtnl_link_get_mtu(link);
        one.up = (rtnl_link_get_flags(link) & IFF_UP) != 0;
        into.push_back(std::move(one));
    });
}

Result<> readAddresses(nl_sock* socket, std::vector<Interface>& into) {
    nl_cache* cache = nullptr;
    const int error = rtnl_addr_alloc_cache(socket, &cache);
    return forEachObject<rtnl_addr>(cache, error, "read addresses", [&](rtnl_addr* address) {
        Interface* owner = find(into, rtnl_addr_get_ifindex(address));
        const int family = rtnl_addr_get_family(address);
        if (owner == nullptr || (family != AF_INET && family != AF_INET6)) return;
        if (family == AF_INET6 && rtnl_addr_get_scope(address) == RT_SCOPE_LINK) return;
        // Made by a router advertisement: temporary, or with a lifetime.
        if ((rtnl_addr_get_flags(address) & IFA_F_PERMANENT) == 0) return;
        owner->addresses.push_back(prefixOf(rtnl_addr_get_local(address), family));
    });
}

void takeRoute(rtnl_route* route, std::vector<Interface>& into) {
    const int family = rtnl_route_get_family(route);
    const uint8_t protocol = rtnl_route_get_protocol(route);
    if (family != AF_INET && family != AF_INET6) return;
    if (rtnl_route_get_table(route) != RT_TABLE_MAIN || rtnl_route_get_type(route) != RTN_UNICAST) {
        return;
    }
    if (protocol == RTPROT_KERNEL || protocol == RTPROT_RA || protocol == RTPROT_REDIRECT) return;
    // Of a route over several interfaces each gets its own part.
    for (int i = 0; i < rtnl_route_get_nnexthops(route); ++i) {
        rtnl_nexthop* hop = rtnl_route_nexthop_n(route, i);
        Interface* owner = find(into, rtnl_route_nh_get_ifindex(hop));
        if (owner == nullptr) continue;
        Route one;
        one.destination = prefixOf(rtnl_route_get_dst(route), family);
        one.gateway = textOf(rtnl_route_nh_get_gateway(hop));
        one.source = textOf(rtnl_route_get_pref_src(route));
        one.scope = rtnl_route_get_scope(route);
        one.protocol = protocol;
        one.metric = rtnl_route_get_priority(route);
        one.onlink = (rtnl_route_nh_get_flags(hop) & RTNH_F_ONLINK) != 0;
        owner->routes.push_back(std::move(one));
    }
}

Result<> readRoutes(nl_sock* socket, std::vector<Interface>& into) {
    nl_cache* cache = nullptr;
    const int error = rtnl_route_alloc_cache(socket, AF_UNSPEC, 0, &cache);
    return forEachObject<rtnl_route>(cache, error, "read routes",
                                     [&](rtnl_route* route) { takeRoute(route, into); });
}

Result<> readNeighbours(nl_sock* socket, std::vector<Interface>& into) {
    nl_cache* cache = nullptr;
    const int error = rtnl_neigh_alloc_cache(socket, &cache);
    return forEachObject<rtnl_neigh>(cache, error, "read neighbours", [&](rtnl_neigh* neighbour) {
        Interface* owner = find(into, rtnl_neigh_get_ifindex(neighbour));
        const int family = rtnl_neigh_get_family(neighbour);
        if (owner == nullptr || (family != AF_INET && family != AF_INET6)) return;
        if ((rtnl_neigh_get_state(neighbour) & NUD_PERMANENT) == 0) return;
        owner->neighbours.push_back(
            {textOf(rtnl_neigh_get_dst(neighbour)), textOf(rtnl_neigh_get_lladdr(neighbour))});
    });
}

// A gateway is reached over a route that has none: that one has to be there first.
void orderRoutes(std::vector<Route>& routes) {
    std::stable_partition(routes.begin(), routes.end(),
                          [](const Route& route) { return route.gateway.empty(); });
}

int familyOf(const std::string& text) {
    return text.find(':') == std::string::npos ? AF_INET : AF_INET6;
}

// ---- setting ----

Result<Address> parseMac(const std::string& text) {
    nl_addr* raw = nullptr;
    if (nl_addr_parse(text.c_str(), AF_LLC, &raw) < 0) {
        return base::fail(base::Code::kInvalidArgument,
                          "malformed MAC address \"" + base::printable(text.substr(0, 64)) + "\"");
    }
    Address mac(raw);
    constexpr unsigned kMacBytes = 6;
    if (nl_addr_get_len(raw) != kMacBytes) {
        return base::fail(base::Code::kInvalidArgument,
                          "malformed MAC address \"" + base::printable(text.substr(0, 64)) + "\"");
    }
    return mac;
}

// Two steps: a MAC address can be set while the link is down only, and routes need it up.
Result<> changeLink(nl_sock* socket, int index, const Interface& wanted, bool up) {
    const std::string what = "set link " + wanted.name;
    const Link now(rtnl_link_alloc());
    const Link changed(rtnl_link_alloc());
    if (!now || !changed) return failErrno(what, ENOMEM);
    rtnl_link_set_ifindex(now.get(), index);
    if (!up && !wanted.mac.empty()) {
        ARCA_TRY(const Address mac, parseMac(wanted.mac));
        rtnl_link_set_addr(changed.get(), mac.get());
    }
    if (!up && wanted.mtu != 0) rtnl_link_set_mtu(changed.get(), wanted.mtu);
    if (up) rtnl_link_set_flags(changed.get(), IFF_UP);
    nl_msg* raw = nullptr;
    const int error = rtnl_link_build_change_request(now.get(), changed.get(), 0, &raw);
    if (error < 0) return failNetlink(what, error);
    const Message message(raw);
    return ask(socket, message.get(), what);
}

Result<> addRoute(nl_sock* socket, int index, const std::string& name, const Route& wanted) {
    const std::string what = "add a route to " + wanted.destination + " over " + name;
    const int family = familyOf(wanted.destination);
    ARCA_TRY(const Parsed destination, parseAddress(family, wanted.destination, Prefix::kNeeded));
    const RouteObject route(rtnl_route_alloc());
    rtnl_nexthop* hop = rtnl_route_nh_alloc();
    if (!route || hop == nullptr) return failErrno(what, ENOMEM);
    rtnl_route_nh_set_ifindex(hop, index);
    if (wanted.onlink) rtnl_route_nh_set_flags(hop, RTNH_F_ONLINK);
    rtnl_route_add_nexthop(route.get(), hop);  // owned by the route now
    if (!wanted.gateway.empty()) {
        ARCA_TRY(const Parsed gateway,
                 parseAddress(familyOf(wanted.gateway), wanted.gateway, Prefix::kNone));
        rtnl_route_nh_set_gateway(hop, gateway.address.get());
    }
    (void)rtnl_route_set_family(route.get(), static_cast<uint8_t>(family));
    rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
    rtnl_route_set_protocol(route.get(), wanted.protocol != 0 ? wanted.protocol : RTPROT_STATIC);
    rtnl_route_set_scope(route.get(), wanted.scope);
    if (wanted.metric != 0) rtnl_route_set_priority(route.get(), wanted.metric);
    (void)rtnl_route_set_type(route.get(), RTN_UNICAST);
    int error = rtnl_route_set_dst(route.get(), destination.address.get());
    if (error >= 0 && !wanted.source.empty()) {
        ARCA_TRY(const Parsed source, parseAddress(family, wanted.source, Prefix::kNone));
        error = rtnl_route_set_pref_src(route.get(), source.address.get());
    }
    nl_msg* raw = nullptr;
    if (error >= 0) error = rtnl_route_build_add_request(route.get(), NLM_F_CREATE, &raw);
    if (error < 0) return failNetlink(what, error);
    const Message message(raw);
    auto added = ask(socket, message.get(), what);
    if (!added && added.error().sysErrno() == EEXIST) return {};
    return added;
}

Result<> addNeighbour(nl_sock* socket, int index, const std::string& name,
                      const Neighbour& wanted) {
    const std::string what = "add neighbour " + wanted.address + " to " + name;
    ARCA_TRY(const Parsed address,
             parseAddress(familyOf(wanted.address), wanted.address, Prefix::kNone));
    ARCA_TRY(const Address mac, parseMac(wanted.mac));
    const Neigh neighbour(rtnl_neigh_alloc());
    if (!neighbour) return failErrno(what, ENOMEM);
    rtnl_neigh_set_ifindex(neighbour.get(), index);
    rtnl_neigh_set_state(neighbour.get(), NUD_PERMANENT);
    (void)rtnl_neigh_set_dst(neighbour.get(), address.address.get());
    rtnl_neigh_set_lladdr(neighbour.get(), mac.get());
    nl_msg* raw = nullptr;
    const int error =
        rtnl_neigh_build_add_request(neighbour.get(), NLM_F_CREATE | NLM_F_REPLACE, &raw);
    if (error < 0) return failNetlink(what, error);
    const Message message(raw);
    return ask(socket, message.get(), what);
}

}  // namespace

Result<std::vector<Interface>> readInterfaces() {
    std::vector<Interface> interfaces;
    ARCA_TRY(const Socket socket, openNetlink());
    ARCA_CHECK(readLinks(socket.get(), interfaces));
    ARCA_CHECK(readAddresses(socket.get(), interfaces));
    ARCA_CHECK(readRoutes(socket.get(), interfaces));
    ARCA_CHECK(readNeighbours(socket.get(), interfaces));
    for (Interface& one : interfaces) orderRoutes(one.routes);
    return interfaces;
}

Result<> configure(const Interface& wanted) {
    ARCA_CHECK(checkInterfaceName(wanted.name));
    const auto index = static_cast<int>(::if_nametoindex(wanted.name.c_str()));
    if (index == 0) return failErrno("interface " + wanted.name);
    ARCA_TRY(const Socket socket, openNetlink());
    if (!wanted.mac.empty() || wanted.mtu != 0) {
        ARCA_CHECK(changeLink(socket.get(), index, wanted, false));
    }
    for (const std::string& address : wanted.addresses) {
        const bool v4 = familyOf(address) == AF_INET;
        auto added = addAddress(wanted.name, v4 ? address : "", v4 ? "" : address);
        if (!added && added.error().sysErrno() != EEXIST) return added;
    }
    ARCA_CHECK(changeLink(socket.get(), index, wanted, true));
    for (const Route& route : wanted.routes) {
        ARCA_CHECK(addRoute(socket.get(), index, wanted.name, route));
    }
    for (const Neighbour& neighbour : wanted.neighbours) {
        ARCA_CHECK(addNeighbour(socket.get(), index, wanted.name, neighbour));
    }
    return {};
}

}  // namespace arca::network
