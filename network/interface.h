// The network of the sandbox through rtnetlink: links, addresses, routes.
//
// Each call opens a netlink socket of its own, in the calling thread's network namespace. Worker
// threads; nothing here touches the agent's state. The kernel's reason stands in the error, with
// its own words where it gives some.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace arca::network {

// kInvalidArgument for what can be no interface's name: empty, longer than 15 bytes, "." or "..",
// or with a '/', a ':', blanks or control bytes in it.
base::Result<> checkInterfaceName(const std::string& name);

// Takes the link up or down; with `mtu` (bytes) sets that too.
base::Result<> setLink(const std::string& interface, bool up, std::optional<uint32_t> mtu);

// `ipv4`: "a.b.c.d/n", may be empty when there is an `ipv6`, "addr/n". An address that is there
// already is an error. For an IPv6 address the link's own configuration by router advertisements
// is switched off first, and no duplicate is looked for.
base::Result<> addAddress(const std::string& interface, const std::string& ipv4,
                          const std::string& ipv6);

// Takes all IPv4 addresses and unicast routes of the interface away, for a lease that has ended.
base::Result<> removeIpv4(const std::string& interface);

struct LinkRoute {
    std::string ipv4_destination{}, ipv4_source{};  // "a.b.c.d/n", "a.b.c.d"; empty: none
    std::string ipv6_destination{}, ipv6_source{};
};
// Routes to destinations that are reached without a gateway. kInvalidArgument with neither family.
base::Result<> addLinkRoute(const std::string& interface, const LinkRoute& route);

// Default routes by way of the gateways that are not empty; with neither, IPv4's by way of the link
// itself.
base::Result<> addDefaultRoute(const std::string& interface, const std::string& ipv4_gateway,
                               const std::string& ipv6_gateway);

}  // namespace arca::network
