// What is set on the interfaces of a network namespace, to be read in one and set in another.
//
// Both functions act in the calling thread's network namespace, through rtnetlink.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace arca::network {

struct Route {
    std::string destination{};  // "a.b.c.d/n" or "addr6/n"; 0.0.0.0/0 and ::/0 are default routes
    std::string gateway{};      // empty: on the link
    std::string source{};       // preferred source address; may be empty
    uint8_t scope = 0;          // rtnetlink's
    uint8_t protocol = 0;       // rtnetlink's
    uint32_t metric = 0;
    bool onlink = false;  // the gateway is on the link whatever the addresses say
};

struct Neighbour {
    std::string address;
    std::string mac;
};

struct Interface {
    std::string name;
    unsigned index = 0;  // in the namespace it was read in
    std::string kind{};  // "veth", "macvlan", ...; empty: the kernel does not say
    std::string mac{};   // "aa:bb:cc:dd:ee:ff"; empty: none
    uint32_t mtu = 0;    // bytes; 0: as it is
    bool up = false;
    std::vector<std::string> addresses{};  // "a.b.c.d/n", "addr6/n"
    std::vector<Route> routes{};           // in an order in which they can be added
    std::vector<Neighbour> neighbours{};   // permanent ones only
};

// All Ethernet interfaces but the loopback. Left out is what the kernel makes by itself where the
// same addresses are set: link-local IPv6 addresses, routes of the kernel's own, and what router
// advertisements made.
base::Result<std::vector<Interface>> readInterfaces();

// Of the interface of that name, which may have to be down for that.
base::Result<> setMac(const std::string& interface, const std::string& mac);

// Gives the interface of that name the MAC address, MTU, addresses, routes and neighbours of
// `wanted`, and takes it up. What an interface has already is left as it is; an address or route
// that is there is no error.
base::Result<> configure(const Interface& wanted);

}  // namespace arca::network
