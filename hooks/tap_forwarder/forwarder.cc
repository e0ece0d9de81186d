#include "hooks/tap_forwarder/forwarder.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "hooks/tap_forwarder/addresses.h"
#include "hooks/tap_forwarder/resolver.h"
#include "network/interface.h"

namespace arca::tap_forwarder {

using base::Code;
using base::fail;
using base::Result;

namespace {

constexpr uint32_t kAnyPort = 0xffffffff;  // VMADDR_PORT_ANY

std::string withoutPrefix(const std::string& address) {
    return address.substr(0, address.find('/'));
}

bool isDefaultIpv4(const network::Route& route) {
    return route.destination == "0.0.0.0/0";
}

// The device as it is to be, with everything checked that can be before there is one.
Result<network::Interface> wantedInterface(const AttachRequest& request) {
    ARCA_CHECK(network::checkInterfaceName(request.device));
    if (request.port == 0 || request.port == kAnyPort || request.port == base::kForwarderPort) {
        return fail(Code::kInvalidArgument,
                    "port " + std::to_string(request.port) + ": not one of a data plane");
    }
    network::Interface wanted;
    if (!request.simple) wanted = request.wanted;
    wanted.name = request.device;
    wanted.mac.clear();
    if (!request.mac_address.empty()) {
        ARCA_TRY(wanted.mac, parseMac(request.mac_address));
    }
    if (!request.simple) return wanted;
    if (!request.simple->gateway.empty()) ARCA_CHECK(checkAddress(request.simple->gateway));
    if (request.simple->ip_address.empty()) return wanted;
    ARCA_TRY(std::string address,
             ipv4WithPrefix(request.simple->ip_address, request.simple->netmask));
    wanted.addresses = {std::move(address)};
    return wanted;
}

Result<NetworkState> stateOf(const AttachRequest& request, const network::Interface& wanted) {
    NetworkState state{.device = request.device};
    ARCA_TRY(state.mac_address, network::macAddressOf(request.device));
    if (!wanted.addresses.empty()) state.ip_address = withoutPrefix(wanted.addresses.front());
    const auto route = std::find_if(wanted.routes.begin(), wanted.routes.end(), isDefaultIpv4);
    if (route != wanted.routes.end()) state.gateway = route->gateway;
    if (request.simple) state.gateway = request.simple->gateway;
    return state;
}

}  // namespace

// One that is attached. Its end takes the device and all that belongs to it away.
class Forwarder::Network {
 public:
    explicit Network(NetworkState state) : state_(std::move(state)) {}

    // The DHCP client first: it must be there when the first connection comes.
    Result<> start(Relay::Parts parts, bool dhcp, const std::string& resolv_conf) {
        if (dhcp) {
            ARCA_TRY(dhcp_,
                     DhcpClient::start(state_.device, [this, resolv_conf](
                                                          const std::optional<Lease>& lease) {
                         const auto done = takeLease(lease, resolv_conf);
                         if (!done) {
                             base::log::error(state_.device + ": DHCP: " + done.error().message());
                         }
                     }));
            parts.connected = [this] { dhcp_->connected(); };
        }
        ARCA_TRY(relay_, Relay::start(std::move(parts)));
        return {};
    }

    void use(std::unique_ptr<Card> card) { card_ = std::move(card); }

    [[nodiscard]] NetworkState state() const {
        const std::lock_guard<std::mutex> lock(mutex_);
        NetworkState out = state_;
        if (card_) out.counts = card_->counts();
        if (relay_) out.counts = relay_->counts();
        return out;
    }

 private:
    Result<> takeLease(const std::optional<Lease>& lease, const std::string& resolv_conf) {
        if (lease == lease_) return {};
        if (lease_) ARCA_CHECK(network::removeIpv4(state_.device));
        lease_.reset();
        network::Interface wanted;
        wanted.name = state_.device;
        if (lease) {
            wanted.addresses = {lease->address};
            if (!lease->routers.empty()) {
                wanted.routes = {{.destination = "0.0.0.0/0", .gateway = lease->routers.front()}};
            }
            ARCA_CHECK(network::configure(wanted));
        }
        lease_ = lease;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            state_.ip_address = lease ? withoutPrefix(lease->address) : "";
            state_.gateway = wanted.routes.empty() ? "" : wanted.routes.front().gateway;
        }
        base::log::info(state_.device +
                        ": DHCP: " + (lease ? lease->address : std::string("the lease is lost")));
        if (lease && state_.device == kMainDevice && !lease->nameservers.empty()) {
            writeResolvConf(resolv_conf, lease->nameservers);
        }
        return {};
    }

    mutable std::mutex mutex_;
    NetworkState state_;          // what a lease changes is guarded by mutex_
    std::optional<Lease> lease_;  // of the DHCP client's thread
    // The relay's thread calls the DHCP client, which is therefore destroyed after it.
    std::unique_ptr<DhcpClient> dhcp_;
    std::unique_ptr<Relay> relay_;
    std::unique_ptr<Card> card_;  // instead of both
};

Forwarder::Forwarder(base::Transport& transport, std::string resolv_conf)
    : transport_(transport), resolv_conf_(std::move(resolv_conf)) {}

Forwarder::~Forwarder() {
    detachAll();
}

Result<std::unique_ptr<Forwarder::Network>> Forwarder::makeCardNetwork(
    const AttachRequest& request, const network::Interface& wanted) {
    if (request.simple && request.simple->ip_address.empty()) {
        return fail(Code::kUnsupported, request.device + ": DHCP for a network card");
    }
    ARCA_TRY(const std::string mac, parseMac(request.card));
    ARCA_TRY(std::unique_ptr<Card> card, Card::take(mac, request.device));
    ARCA_CHECK(network::configure(wanted));
    ARCA_TRY(NetworkState state, stateOf(request, wanted));
    auto network = std::make_unique<Network>(std::move(state));
    network->use(std::move(card));
    return network;
}

Result<std::unique_ptr<Forwarder::Network>> Forwarder::makeNetwork(const AttachRequest& request) {
    ARCA_TRY(const network::Interface wanted, wantedInterface(request));
    if (!request.card.empty()) return makeCardNetwork(request, wanted);
    ARCA_TRY(auto listener, transport_.listen(request.port));
    ARCA_TRY(base::UniqueFd device, network::makeTap(request.device, request.vnet_header));
    ARCA_CHECK(network::configure(wanted));
    ARCA_TRY(NetworkState state, stateOf(request, wanted));
    state.port = request.port;
    const bool dhcp = request.simple && request.simple->ip_address.empty();
    auto network = std::make_unique<Network>(std::move(state));
    ARCA_CHECK(network->start({.name = request.device,
                               .device = std::move(device),
                               .vnet_header = request.vnet_header,
                               .listener = std::move(listener)},
                              dhcp, resolv_conf_));
    return network;
}

Result<NetworkState> Forwarder::attach(const AttachRequest& request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (networks_.count(request.device) != 0) {
        return fail(Code::kAlreadyExists, request.device + ": is attached already");
    }
    ARCA_TRY(auto network, makeNetwork(request));
    NetworkState state = network->state();
    networks_.emplace(request.device, std::move(network));
    const bool is_static = request.simple && !request.simple->ip_address.empty();
    if (is_static && request.device == kMainDevice && !request.simple->gateway.empty()) {
        writeResolvConf(resolv_conf_, {request.simple->gateway});
    }
    base::log::info(request.device + ": attached, " +
                    (request.card.empty() ? "port " + std::to_string(request.port) : "a card") +
                    (state.ip_address.empty() ? "" : ", " + state.ip_address));
    return state;
}

Result<> Forwarder::detach(const std::string& device) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = networks_.find(device);
    if (found == networks_.end()) {
        return fail(Code::kNotFound, base::printable(device.substr(0, 64)) + ": is not attached");
    }
    auto network = std::move(found->second);
    networks_.erase(found);
    ended_ += network->state().counts;
    network.reset();
    base::log::info(device + ": detached");
    return {};
}

Result<> Forwarder::serveNames(const std::string& address, uint32_t port) {
    const std::lock_guard<std::mutex> lock(mutex_);
    names_.reset();
    ARCA_TRY(names_, NameRelay::start(transport_, address, port));
    base::log::info("names: questions to " + address + " are passed on");
    return {};
}

void Forwarder::detachAll() {
    for (const NetworkState& network : list()) (void)detach(network.device);
}

std::vector<NetworkState> Forwarder::list() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<NetworkState> out;
    out.reserve(networks_.size());
    for (const auto& [name, network] : networks_) out.push_back(network->state());
    return out;
}

Forwarder::Status Forwarder::status() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    Status out;
    out.networks = static_cast<uint32_t>(networks_.size());
    out.uptime = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() -
                                                                  started_);
    out.total = ended_;
    for (const auto& [name, network] : networks_) out.total += network->state().counts;
    return out;
}

}  // namespace arca::tap_forwarder
