// The forwarder's networks: what its calls do, without gRPC.
//
// Any thread; attach and detach come one after the other. Networks act in the network namespace
// that the process is in.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/transport.h"
#include "hooks/tap_forwarder/card.h"
#include "hooks/tap_forwarder/counters.h"
#include "hooks/tap_forwarder/dhcp.h"
#include "hooks/tap_forwarder/name_relay.h"
#include "hooks/tap_forwarder/relay.h"
#include "network/snapshot.h"
#include "network/tap_device.h"

namespace arca::tap_forwarder {

// The device whose nameserver is the forwarder's own.
inline constexpr char kMainDevice[] = "eth0";

// What a host asks for that knows nothing but one IPv4 address.
struct SimpleAddress {
    std::string ip_address{};  // empty: DHCP
    std::string gateway{};     // for resolv.conf only: no route is made
    uint32_t netmask = 0;      // prefix length; 0: 24
};

struct AttachRequest {
    std::string device;
    uint32_t port = 0;  // of the data plane
    VnetHeader vnet_header = VnetHeader::kNo;
    std::string mac_address{};              // empty: the kernel draws one
    std::string card{};                     // MAC address of a card that becomes the device
    std::optional<SimpleAddress> simple{};  // none: all that the device is to have is in `wanted`
    network::Interface wanted{};            // its name and MAC address are not looked at
};

struct NetworkState {
    std::string device;
    std::string mac_address{};
    std::string ip_address{}, gateway{};  // empty: none (yet)
    uint32_t port = 0;                    // 0: a card, whose frames do not come this way
    PacketCounts counts{};
};

class Forwarder {
 public:
    // `transport` must outlive the forwarder. `resolv_conf`: path of the file of that name.
    Forwarder(base::Transport& transport, std::string resolv_conf);
    ~Forwarder();
    Forwarder(const Forwarder&) = delete;
    Forwarder& operator=(const Forwarder&) = delete;

    // Listens on the port, makes the device, gives it its addresses and takes it up; what the host
    // is to know. Nothing is left of it when it fails: kInvalidArgument for what is malformed,
    // kAlreadyExists for a device that is there, EADDRINUSE for a port that somebody listens on.
    base::Result<NetworkState> attach(const AttachRequest& request);
    // Takes the device away, at once. kNotFound when it is none of ours.
    base::Result<> detach(const std::string& device);
    void detachAll();

    // Passes questions to the name server `address` on to the host; see name_relay.h.
    base::Result<> serveNames(const std::string& address, uint32_t port);

    [[nodiscard]] std::vector<NetworkState> list() const;  // by name

    struct Status {
        uint32_t networks = 0;
        std::chrono::seconds uptime{};
        PacketCounts total{};  // those that have been detached included
    };
    [[nodiscard]] Status status() const;

 private:
    class Network;

    base::Result<std::unique_ptr<Network>> makeNetwork(const AttachRequest& request);
    static base::Result<std::unique_ptr<Network>> makeCardNetwork(const AttachRequest& request,
                                                                  const network::Interface& wanted);

    base::Transport& transport_;
    const std::string resolv_conf_;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    mutable std::mutex mutex_;
    std::map<std::string, std::unique_ptr<Network>> networks_;  // guarded by mutex_
    PacketCounts ended_;                                        // guarded by mutex_
    std::unique_ptr<NameRelay> names_;                          // guarded by mutex_
};

}  // namespace arca::tap_forwarder
