// linux.netDevices: interfaces of the runtime's network namespace that become the container's.
// Stage 1's side: it still has the caller's privileges.
//
// Source: runtime-spec config-linux.md, "Network Devices".
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "network/rtnl.h"
#include "spec/spec.h"

namespace arca::vmexec {

class NetDevices {
 public:
    // To be called in the runtime's network namespace, before any other is joined. Fails with
    // kNotFound when one of them is not there. Does nothing when there are none.
    static base::Result<NetDevices> open(const std::map<std::string, spec::NetDevice>& devices);

    // Moves them to the network namespace of the process behind `init_pidfd`, with their permanent
    // global addresses, and sets them up. The caller is in that namespace afterwards. Fails before
    // the first is moved when a name is taken there; what is found wrong later leaves the devices
    // before it moved, and the kernel then gives those back or removes them with the namespace.
    base::Result<> moveTo(int init_pidfd);

 private:
    struct Device {
        std::string name;
        std::string new_name;
        int index = 0;
        std::vector<network::InterfaceAddress> addresses;  // as they are to be set again
    };

    base::Result<> findDevice(Device& device);
    base::Result<> readAddresses(Device& device);
    base::Result<int> moveLink(const Device& device, int container_ns);
    base::Result<> move(nl_sock* container, int container_ns, const Device& device);

    std::vector<Device> devices_;
    network::Socket host_;
    base::UniqueFd host_ns_;
};

}  // namespace arca::vmexec
