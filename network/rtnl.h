// What users of libnl share: owned objects, requests with the kernel's own words.
#pragma once

#include <linux/rtnetlink.h>
#include <netlink/addr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/route.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

namespace arca::network {

template <auto Free>
struct Freed {
    template <typename T>
    void operator()(T* object) const {
        Free(object);
    }
};
using Socket = std::unique_ptr<nl_sock, Freed<nl_socket_free>>;
using Message = std::unique_ptr<nl_msg, Freed<nlmsg_free>>;
using Address = std::unique_ptr<nl_addr, Freed<nl_addr_put>>;
using Link = std::unique_ptr<rtnl_link, Freed<rtnl_link_put>>;
using InterfaceAddress = std::unique_ptr<rtnl_addr, Freed<rtnl_addr_put>>;
using RouteObject = std::unique_ptr<rtnl_route, Freed<rtnl_route_put>>;
using Neigh = std::unique_ptr<rtnl_neigh, Freed<rtnl_neigh_put>>;
using Cache = std::unique_ptr<nl_cache, Freed<nl_cache_free>>;

tl::unexpected<base::Error> failNetlink(const std::string& what, int nl_error);

// A socket of the calling thread's network namespace.
base::Result<Socket> openNetlink();

// Sends one request and waits for its acknowledgement.
base::Result<> ask(nl_sock* socket, nl_msg* message, const std::string& what);

struct Parsed {
    Address address;
    std::string text;
};

// "" for none.
std::string textOf(nl_addr* address);

// For forEachObject(): all links.
int allLinks(nl_sock* socket, nl_cache** cache);

enum class Prefix { kNeeded, kNone };

// "address/length", or the address alone.
base::Result<Parsed> parseAddress(int family, const std::string& text, Prefix prefix);

// Gives each object of the table that `read` (an rtnl_*_alloc_cache) fetches to `take`, up to the
// first that this fails on.
template <typename Object, typename Read, typename Take>
base::Result<> forEachObject(nl_sock* socket, Read read, const std::string& what, Take take) {
    nl_cache* raw = nullptr;
    const int error = read(socket, &raw);
    if (error < 0) return failNetlink("read " + what, error);
    const Cache cache(raw);
    for (nl_object* object = nl_cache_get_first(raw); object != nullptr;
         object = nl_cache_get_next(object)) {
        ARCA_CHECK(take(reinterpret_cast<Object*>(object)));
    }
    return {};
}

// ---- requests about the interface of that index; name and `what` are for messages ----

// Changes what is set in `wanted`.
base::Result<> changeLink(nl_sock* socket, unsigned index, const std::string& what,
                          rtnl_link* wanted);
base::Result<> takeUp(nl_sock* socket, unsigned index, const std::string& what);

// EEXIST when it is there.
base::Result<> addAddress(nl_sock* socket, unsigned index, const std::string& interface,
                          const Parsed& address);

// Router advertisements give it no more addresses and routes. One that cannot be told is a warning:
// a link that takes others by itself still works.
void stopAutoconfiguration(const std::string& interface);

struct RouteRequest {
    const Parsed& destination;
    nl_addr* gateway = nullptr;
    nl_addr* source = nullptr;
    uint8_t protocol = RTPROT_BOOT;
    uint8_t scope = RT_SCOPE_UNIVERSE;
    uint32_t metric = 0;
    bool onlink = false;
    int flags = NLM_F_CREATE | NLM_F_EXCL;
};
// Into the main table.
base::Result<> addRoute(nl_sock* socket, unsigned index, const std::string& interface,
                        const RouteRequest& request);

}  // namespace arca::network
