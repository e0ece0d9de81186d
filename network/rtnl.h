// What users of libnl share: owned objects, requests with the kernel's own words.
#pragma once

#include <netlink/addr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/route.h>

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

enum class Prefix { kNeeded, kNone };

// "address/length", or the address alone.
base::Result<Parsed> parseAddress(int family, const std::string& text, Prefix prefix);

}  // namespace arca::network
