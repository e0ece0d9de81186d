// Addresses as hosts write them in the forwarder's requests: checked, and in one spelling.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace arca::tap_forwarder {

// "a.b.c.d/n" of an address and a prefix length, of which 0 stands for 24. kInvalidArgument names
// what is malformed.
base::Result<std::string> ipv4WithPrefix(const std::string& address, uint32_t prefix_length);

// kInvalidArgument for what is no IPv4 address in its usual spelling.
base::Result<> checkIpv4(const std::string& address);

// Either family.
base::Result<> checkAddress(const std::string& address);

// The prefix length of a netmask "255.255.255.0". kInvalidArgument with a hole in it.
base::Result<uint32_t> prefixOfMask(const std::string& mask);

// "aa:bb:cc:dd:ee:ff" in lower case. kInvalidArgument for another form, for a multicast address and
// for all zeros: no interface can have those.
base::Result<std::string> parseMac(const std::string& text);

}  // namespace arca::tap_forwarder
