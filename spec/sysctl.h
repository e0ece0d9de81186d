// Keys of linux.sysctl as paths. parse*.cc checks them with this, and whoever sets them finds the
// file with it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace arca::spec {

// The path below /proc/sys of `key`: "net.ipv4.ip_forward" and "net/ipv4/ip_forward" are both
// "net/ipv4/ip_forward". The first of the two separators in the key is the separator; the other one
// is then a dot in a name ("net/ipv4/conf/eth0.100/forwarding",
// "net.ipv4.conf.eth0/100.forwarding"). nullopt for a key that could lead out of /proc/sys: an
// empty part, "." or "..", or nothing at all. Source: sysctl.d(5), sysctl(8).
std::optional<std::string> sysctlPath(std::string_view key);

}  // namespace arca::spec
