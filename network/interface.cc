#include "network/interface.h"

#include <net/if.h>
#include <netlink/route/nexthop.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "network/rtnl.h"

namespace arca::network {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

namespace {

Result<unsigned> indexOf(const std::string& interface) {
    ARCA_CHECK(checkInterfaceName(interface));
    const unsigned index = ::if_nametoindex(interface.c_str());
    if (index == 0) return failErrno("interface " + interface);
    return index;
}

// 0.0.0.0/0 or ::/0.
Result<Parsed> everywhere(int family) {
    return parseAddress(family, family == AF_INET ? "0.0.0.0/0" : "::/0", Prefix::kNeeded);
}

// Removes those of a table's objects that `chosen` names.
template <typename Object, typename Read, typename Chosen, typename Remove>
Result<> removeEach(nl_sock* socket, Read read, const std::string& what, Chosen chosen,
                    Remove remove) {
    return forEachObject<Object>(socket, read, what, [&](Object* one) -> Result<> {
        if (!chosen(one)) return {};
        const int error = remove(socket, one, 0);
        // Gone by itself, with what it depended on.
        if (error >= 0 || error == -NLE_OBJ_NOTFOUND || error == -NLE_NOADDR) return {};
        return failNetlink("remove " + what, error);
    });
}

}  // namespace

Result<> checkInterfaceName(const std::string& name) {
    const bool fits = !name.empty() && name.size() < IFNAMSIZ && name != "." && name != "..";
    const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
        return static_cast<unsigned char>(c) > ' ' && c != '\x7f' && c != '/' && c != ':';
    });
    if (fits && plain) return {};
    return fail(Code::kInvalidArgument,
                "malformed interface name \"" + base::printable(name.substr(0, 64)) + "\"");
}

Result<> setLink(const std::string& interface, bool up, std::optional<uint32_t> mtu) {
    ARCA_TRY(const unsigned index, indexOf(interface));
    ARCA_TRY(const Socket socket, openNetlink());
    const std::string what = "set link " + interface;
    const Link wanted(rtnl_link_alloc());
    if (!wanted) return failErrno(what, ENOMEM);
    // The flags that are named here are the only ones that change.
    if (up) {
        rtnl_link_set_flags(wanted.get(), IFF_UP);
    } else {
        rtnl_link_unset_flags(wanted.get(), IFF_UP);
    }
    if (mtu) rtnl_link_set_mtu(wanted.get(), *mtu);
    return changeLink(socket.get(), index, what, wanted.get());
}

Result<> addAddress(const std::string& interface, const std::string& ipv4,
                    const std::string& ipv6) {
    // Everything is read before anything is changed.
    ARCA_CHECK(checkInterfaceName(interface));
    std::optional<Parsed> first;
    std::optional<Parsed> second;
    if (!ipv4.empty() || ipv6.empty()) {
        ARCA_TRY(first, parseAddress(AF_INET, ipv4, Prefix::kNeeded));
    }
    if (!ipv6.empty()) {
        ARCA_TRY(second, parseAddress(AF_INET6, ipv6, Prefix::kNeeded));
    }
    ARCA_TRY(const unsigned index, indexOf(interface));
    ARCA_TRY(const Socket socket, openNetlink());
    if (first) ARCA_CHECK(addAddress(socket.get(), index, interface, *first));
    if (!second) return {};
    stopAutoconfiguration(interface);
    return addAddress(socket.get(), index, interface, *second);
}

Result<> removeIpv4(const std::string& interface) {
    ARCA_TRY(const unsigned index, indexOf(interface));
    ARCA_TRY(const Socket socket, openNetlink());
    const auto is_ours = [index](int other) { return other == static_cast<int>(index); };
    ARCA_CHECK(removeEach<rtnl_addr>(
        socket.get(), rtnl_addr_alloc_cache, "addresses of " + interface,
        [&](rtnl_addr* address) {
            return rtnl_addr_get_family(address) == AF_INET &&
                   is_ours(rtnl_addr_get_ifindex(address));
        },
        rtnl_addr_delete));
    // With the addresses went the routes that the kernel had made for them.
    const auto routes = [](nl_sock* sock, nl_cache** cache) {
        return rtnl_route_alloc_cache(sock, AF_INET, 0, cache);
    };
    return removeEach<rtnl_route>(
        socket.get(), routes, "routes over " + interface,
        [&](rtnl_route* route) {
            return rtnl_route_get_type(route) == RTN_UNICAST &&
                   rtnl_route_get_nnexthops(route) == 1 &&
                   is_ours(rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(route, 0)));
        },
        rtnl_route_delete);
}

Result<> addLinkRoute(const std::string& interface, const LinkRoute& route) {
    if (route.ipv4_destination.empty() && route.ipv6_destination.empty()) {
        return fail(Code::kInvalidArgument, "no destination of either family");
    }
    ARCA_CHECK(checkInterfaceName(interface));
    struct Wanted {
        int family;
        Parsed destination;
        std::optional<Parsed> source;
    };
    std::vector<Wanted> wanted;
    const auto read = [&](int family, const std::string& destination,
                          const std::string& source) -> Result<> {
        if (destination.empty()) return {};
        Wanted one{family, {}, {}};
        ARCA_TRY(one.destination, parseAddress(family, destination, Prefix::kNeeded));
        if (!source.empty()) {
            ARCA_TRY(one.source, parseAddress(family, source, Prefix::kNone));
        }
        wanted.push_back(std::move(one));
        return {};
    };
    ARCA_CHECK(read(AF_INET, route.ipv4_destination, route.ipv4_source));
    ARCA_CHECK(read(AF_INET6, route.ipv6_destination, route.ipv6_source));
    ARCA_TRY(const unsigned index, indexOf(interface));
    ARCA_TRY(const Socket socket, openNetlink());
    for (const Wanted& one : wanted) {
        const bool v4 = one.family == AF_INET;
        ARCA_CHECK(addRoute(socket.get(), index, interface,
                            {.destination = one.destination,
                             .source = one.source ? one.source->address.get() : nullptr,
                             .protocol = static_cast<uint8_t>(v4 ? RTPROT_KERNEL : RTPROT_STATIC),
                             .scope = RT_SCOPE_LINK}));
    }
    return {};
}

Result<> addDefaultRoute(const std::string& interface, const std::string& ipv4_gateway,
                         const std::string& ipv6_gateway) {
    ARCA_CHECK(checkInterfaceName(interface));
    std::optional<Parsed> first;
    std::optional<Parsed> second;
    if (!ipv4_gateway.empty()) {
        ARCA_TRY(first, parseAddress(AF_INET, ipv4_gateway, Prefix::kNone));
    }
    if (!ipv6_gateway.empty()) {
        ARCA_TRY(second, parseAddress(AF_INET6, ipv6_gateway, Prefix::kNone));
    }
    ARCA_TRY(const unsigned index, indexOf(interface));
    ARCA_TRY(const Socket socket, openNetlink());
    if (first || !second) {
        ARCA_TRY(const Parsed all, everywhere(AF_INET));
        const auto scope = static_cast<uint8_t>(first ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
        ARCA_CHECK(addRoute(socket.get(), index, interface,
                            {.destination = all,
                             .gateway = first ? first->address.get() : nullptr,
                             .scope = scope}));
    }
    if (!second) return {};
    ARCA_TRY(const Parsed all, everywhere(AF_INET6));
    return addRoute(socket.get(), index, interface,
                    {.destination = all, .gateway = second->address.get()});
}

}  // namespace arca::network
