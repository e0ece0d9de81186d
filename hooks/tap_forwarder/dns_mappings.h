// UpdateDNSMappings: tells the guest's name server which containers there are.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace arca::tap_forwarder {

struct DnsPeer {
    std::string name, id, ip_address;
    std::vector<std::string> aliases;
};
using DnsMappings = std::map<std::string, std::vector<DnsPeer>>;  // by network

inline constexpr char kDnsControlSocket[] = "/tmp/arca-dns-control.sock";

// Sends all of `mappings` as one JSON object, {"networks": {NAME: {"containers": [{"name", "id",
// "ip_address", "aliases"}]}}}, to the name server's Unix socket and waits some seconds for its
// answer, a JSON object. Gives the number of containers. kUnavailable when nobody listens or nobody
// answers; kFailedPrecondition with the name server's words when its "success" is false.
base::Result<uint32_t> updateDns(const DnsMappings& mappings,
                                 const std::string& socket_path = kDnsControlSocket);

}  // namespace arca::tap_forwarder
