#include "network/snapshot.h"

#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netlink/route/nexthop.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/strings.h"
#include "network/interface.h"
#include "network/rtnl.h"

namespace arca::network {

using base::failErrno;
using base::Result;

namespace {

// With the prefix length even where it is that of one host, or 0.
std::string prefixOf(nl_addr* address, int family) {
    if (address == nullptr || nl_addr_get_len(address) == 0) {
        return family == AF_INET6 ? "::/0" : "0.0.0.0/0";
    }
    const std::string text = textOf(address);
    if (text.find('/') != std::string::npos) return text;
    return text + "/" + std::to_string(nl_addr_get_prefixlen(address));
}

Interface* find(std::vector<Interface>& interfaces, int index) {
    const auto found = std::find_if(
        interfaces.begin(), interfaces.end(),
        [&](const Interface& one) { return one.index == static_cast<unsigned>(index); });
    return found == interfaces.end() ? nullptr : &*found;
}

Result<> readLinks(nl_sock* socket, std::vector<Interface>& into) {
    const auto take = [&](rtnl_link* link) -> Result<> {
        if (rtnl_link_get_arptype(link) != ARPHRD_ETHER) return {};
        Interface one;
        one.name = rtnl_link_get_name(link);
        one.index = static_cast<unsigned>(rtnl_link_get_ifindex(link));
        if (const char* kind = rtnl_link_get_type(link)) one.kind = kind;
        one.mac = textOf(rtnl_link_get_addr(link));
        one.mtu = rtnl_link_get_mtu(link);
        one.up = (rtnl_link_get_flags(link) & IFF_UP) != 0;
        into.push_back(std::move(one));
        return {};
    };
    return forEachObject<rtnl_link>(socket, allLinks, "interfaces", take);
}

Result<> readAddresses(nl_sock* socket, std::vector<Interface>& into) {
    const auto take = [&](rtnl_addr* address) -> Result<> {
        Interface* owner = find(into, rtnl_addr_get_ifindex(address));
        const int family = rtnl_addr_get_family(address);
        if (owner == nullptr || (family != AF_INET && family != AF_INET6)) return {};
        if (family == AF_INET6 && rtnl_addr_get_scope(address) == RT_SCOPE_LINK) return {};
        // Made by a router advertisement: temporary, or with a lifetime.
        if ((rtnl_addr_get_flags(address) & IFA_F_PERMANENT) == 0) return {};
        owner->addresses.push_back(prefixOf(rtnl_addr_get_local(address), family));
        return {};
    };
    return forEachObject<rtnl_addr>(socket, rtnl_addr_alloc_cache, "addresses", take);
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
    const auto all = [](nl_sock* sock, nl_cache** cache) {
        return rtnl_route_alloc_cache(sock, AF_UNSPEC, 0, cache);
    };
    return forEachObject<rtnl_route>(socket, all, "routes", [&](rtnl_route* route) -> Result<> {
        takeRoute(route, into);
        return {};
    });
}

Result<> readNeighbours(nl_sock* socket, std::vector<Interface>& into) {
    const auto take = [&](rtnl_neigh* neighbour) -> Result<> {
        Interface* owner = find(into, rtnl_neigh_get_ifindex(neighbour));
        const int family = rtnl_neigh_get_family(neighbour);
        if (owner == nullptr || (family != AF_INET && family != AF_INET6)) return {};
        if ((rtnl_neigh_get_state(neighbour) & NUD_PERMANENT) == 0) return {};
        owner->neighbours.push_back(
            {textOf(rtnl_neigh_get_dst(neighbour)), textOf(rtnl_neigh_get_lladdr(neighbour))});
        return {};
    };
    return forEachObject<rtnl_neigh>(socket, rtnl_neigh_alloc_cache, "neighbours", take);
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

// A MAC address can be set while the link is down only; routes need it up.
Result<> prepareLink(nl_sock* socket, unsigned index, const Interface& wanted) {
    if (wanted.mac.empty() && wanted.mtu == 0) return {};
    const std::string what = "set link " + wanted.name;
    const Link changed(rtnl_link_alloc());
    if (!changed) return failErrno(what, ENOMEM);
    if (!wanted.mac.empty()) {
        ARCA_TRY(const Address mac, parseMac(wanted.mac));
        rtnl_link_set_addr(changed.get(), mac.get());
    }
    if (wanted.mtu != 0) rtnl_link_set_mtu(changed.get(), wanted.mtu);
    return changeLink(socket, index, what, changed.get());
}

Result<> unlessThere(Result<> added) {
    if (!added && added.error().sysErrno() == EEXIST) return {};
    return added;
}

Result<> addAddresses(nl_sock* socket, unsigned index, const Interface& wanted) {
    bool configured = true;  // by advertisements, until there is an address of the family
    for (const std::string& text : wanted.addresses) {
        const int family = familyOf(text);
        ARCA_TRY(const Parsed address, parseAddress(family, text, Prefix::kNeeded));
        if (family == AF_INET6 && std::exchange(configured, false)) {
            stopAutoconfiguration(wanted.name);
        }
        ARCA_CHECK(unlessThere(addAddress(socket, index, wanted.name, address)));
    }
    return {};
}

Result<> setRoute(nl_sock* socket, unsigned index, const std::string& name, const Route& wanted) {
    const int family = familyOf(wanted.destination);
    ARCA_TRY(const Parsed destination, parseAddress(family, wanted.destination, Prefix::kNeeded));
    Parsed gateway;
    Parsed source;
    if (!wanted.gateway.empty()) {
        ARCA_TRY(gateway, parseAddress(familyOf(wanted.gateway), wanted.gateway, Prefix::kNone));
    }
    if (!wanted.source.empty()) {
        ARCA_TRY(source, parseAddress(family, wanted.source, Prefix::kNone));
    }
    const uint8_t protocol = wanted.protocol != 0 ? wanted.protocol : uint8_t{RTPROT_STATIC};
    return unlessThere(addRoute(socket, index, name,
                                {.destination = destination,
                                 .gateway = gateway.address.get(),
                                 .source = source.address.get(),
                                 .protocol = protocol,
                                 .scope = wanted.scope,
                                 .metric = wanted.metric,
                                 .onlink = wanted.onlink,
                                 .flags = NLM_F_CREATE}));
}

Result<> addNeighbour(nl_sock* socket, unsigned index, const std::string& name,
                      const Neighbour& wanted) {
    const std::string what = "add neighbour " + wanted.address + " to " + name;
    ARCA_TRY(const Parsed address,
             parseAddress(familyOf(wanted.address), wanted.address, Prefix::kNone));
    ARCA_TRY(const Address mac, parseMac(wanted.mac));
    const Neigh neighbour(rtnl_neigh_alloc());
    if (!neighbour) return failErrno(what, ENOMEM);
    rtnl_neigh_set_ifindex(neighbour.get(), static_cast<int>(index));
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

Result<> setMac(const std::string& interface, const std::string& mac) {
    const unsigned index = ::if_nametoindex(interface.c_str());
    if (index == 0) return failErrno("interface " + interface);
    ARCA_TRY(const Socket socket, openNetlink());
    return prepareLink(socket.get(), index, {.name = interface, .mac = mac});
}

Result<> configure(const Interface& wanted) {
    ARCA_CHECK(checkInterfaceName(wanted.name));
    const unsigned index = ::if_nametoindex(wanted.name.c_str());
    if (index == 0) return failErrno("interface " + wanted.name);
    ARCA_TRY(const Socket socket, openNetlink());
    ARCA_CHECK(prepareLink(socket.get(), index, wanted));
    ARCA_CHECK(addAddresses(socket.get(), index, wanted));
    ARCA_CHECK(takeUp(socket.get(), index, "set link " + wanted.name));
    for (const Route& route : wanted.routes) {
        ARCA_CHECK(setRoute(socket.get(), index, wanted.name, route));
    }
    for (const Neighbour& neighbour : wanted.neighbours) {
        ARCA_CHECK(addNeighbour(socket.get(), index, wanted.name, neighbour));
    }
    return {};
}

}  // namespace arca::network
