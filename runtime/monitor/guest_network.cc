#include "runtime/monitor/guest_network.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "base/thread.h"
#include "network/changes.h"
#include "runtime/grpc_client.h"
#include "runtime/monitor/kernel_vsock.h"
#include "runtime/rpc_names.h"
#include "tap_forwarder.pb.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
namespace forwarder_api = arca::tapforwarder::v1;

namespace {

// Of the frames, in the guest, where the only others are those of the agent and its services.
constexpr uint32_t kFirstPort = 0x20000000;
constexpr uint32_t kPortRange = 1U << 20U;
constexpr std::chrono::milliseconds kDialLimit{2'000};
// An engine makes an interface in several steps.
constexpr int kQuietMillis = 100;
constexpr unsigned kMostReconnections = 5;

// Held by the monitor of the guest that has the namespace's interfaces: abstract socket names are
// the network namespace's own, and go with their process.
Result<UniqueFd> claimNamespace() {
    constexpr std::string_view kName("\0arca-guest-network", 19);
    UniqueFd claim(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!claim.valid()) return failErrno("make a socket");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (void)std::copy(kName.begin(), kName.end(), address.sun_path);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + kName.size());
    if (::bind(claim.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0) return claim;
    if (errno != EADDRINUSE) return failErrno("claim the network namespace");
    return fail(Code::kFailedPrecondition,
                "its interfaces are those of a container in another guest; containers that share "
                "a network namespace must be of one pod");
}

forwarder_api::AttachNetworkRequest requestFor(const network::Interface& interface, uint32_t port) {
    forwarder_api::AttachNetworkRequest request;
    request.set_device(interface.name);
    request.set_vsock_port(port);
    request.set_mac_address(interface.mac);
    request.set_configured(true);
    request.set_vnet_header(true);
    request.set_mtu(interface.mtu);
    for (const std::string& address : interface.addresses) request.add_addresses(address);
    for (const network::Route& route : interface.routes) {
        auto& copy = *request.add_routes();
        copy.set_destination(route.destination);
        copy.set_gateway(route.gateway);
        copy.set_source(route.source);
        copy.set_scope(route.scope);
        copy.set_metric(route.metric);
        copy.set_protocol(route.protocol);
        copy.set_onlink(route.onlink);
    }
    for (const network::Neighbour& neighbour : interface.neighbours) {
        auto& copy = *request.add_neighbours();
        copy.set_address(neighbour.address);
        copy.set_mac_address(neighbour.mac);
    }
    return request;
}

}  // namespace

GuestNetwork::GuestNetwork(Surroundings around, UniqueFd name_space, UniqueFd wake)
    : around_(around),
      namespace_(std::move(name_space)),
      wake_(std::move(wake)),
      next_port_(kFirstPort + randomNumber(kPortRange)) {}

Result<std::unique_ptr<GuestNetwork>> GuestNetwork::start(Surroundings around,
                                                          UniqueFd name_space) {
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake.valid()) return failErrno("make an eventfd");
    std::unique_ptr<GuestNetwork> network(
        new GuestNetwork(around, std::move(name_space), std::move(wake)));
    if (network->stop_.fd() < 0) return failErrno("make an eventfd");
    ARCA_TRY(network->thread_, base::startThread([n = network.get()] { n->live(); }));
    return network;
}

GuestNetwork::~GuestNetwork() {
    (void)stop_.set();
    if (thread_.joinable()) thread_.join();
}

void GuestNetwork::attach(Answer then) {
    const std::lock_guard lock(mutex_);
    if (ended_) return refuse(std::move(then));
    requests_.push_back(std::move(then));
    (void)::eventfd_write(wake_.get(), 1);
}

// ---- the thread ----

void GuestNetwork::live() {
    auto lived = liveInNamespace();
    if (!lived) base::log::error("network of a guest: " + lived.error().message());
    links_.clear();
    names_.reset();
    claim_.reset();
    // Whoever asks from here on learns why.
    const std::lock_guard lock(mutex_);
    ended_ = lived ? base::Error(Code::kUnavailable, "the network is being ended") : lived.error();
    for (Answer& answer : std::exchange(requests_, {})) refuse(std::move(answer));
}

void GuestNetwork::refuse(Answer answer) {
    around_.loop.post(
        [answer = std::move(answer), why = *ended_] { answer(fail(base::Error(why))); });
}

Result<> GuestNetwork::liveInNamespace() {
    if (::setns(namespace_.get(), CLONE_NEWNET) != 0) {
        return failErrno("enter the container's network namespace");
    }
    ARCA_TRY(claim_, claimNamespace());
    ARCA_TRY(network::Changes changes, network::Changes::open());
    bool begun = false;    // nothing is touched before the first request
    bool changed = false;  // and not looked at yet
    while (true) {
        pollfd entries[3] = {
            {stop_.fd(), POLLIN, 0}, {wake_.get(), POLLIN, 0}, {changes.fd(), POLLIN, 0}};
        const int ready = ::poll(entries, 3, changed ? kQuietMillis : -1);
        if (ready < 0 && errno != EINTR) return failErrno("poll");
        if (ready < 0) continue;
        if (entries[0].revents != 0) return {};
        if (entries[2].revents != 0) {
            changes.drain();
            changed = begun;
        }
        if (entries[1].revents != 0) {
            eventfd_t count = 0;
            (void)::eventfd_read(wake_.get(), &count);
            reconnectEnded();
            answerRequests();
            begun = true;
        }
        if (ready == 0 && std::exchange(changed, false)) {
            const auto attached = attachAll();
            if (!attached) base::log::warning("network: " + attached.error().message());
        }
    }
}

void GuestNetwork::answerRequests() {
    std::vector<Answer> requests;
    {
        const std::lock_guard lock(mutex_);
        requests.swap(requests_);
    }
    if (requests.empty()) return;
    const Result<size_t> attached = attachAll();
    if (attached) serveNames();
    for (Answer& answer : requests) {
        around_.loop.post([answer = std::move(answer), attached] { answer(attached); });
    }
}

Result<size_t> GuestNetwork::attachAll() {
    ARCA_TRY(const std::vector<network::Interface> interfaces, network::readInterfaces());
    detachGone(interfaces);
    for (const network::Interface& interface : interfaces) {
        if (!interface.up || links_.count(interface.index) != 0) continue;
        if (interface.name == NetworkCard::kName) continue;
        auto attached = attachOne(interface);
        if (!attached) return fail(std::move(attached).error().withContext(interface.name));
    }
    return links_.size();
}

Result<> GuestNetwork::attachOne(const network::Interface& interface) {
    auto link = std::make_unique<Link>();
    link->interface = interface;
    link->port = nextPort();
    auto request = requestFor(interface, link->port);
    if (around_.card != nullptr && around_.card->isFree()) request.set_card(NetworkCard::kMac);
    forwarder_api::AttachNetworkResponse response;
    ARCA_CHECK(callForwarder(ARCA_FORWARDER_RPC("AttachNetwork"), request, response));
    if (!response.success()) {
        return fail(Code::kInternal, "the guest's forwarder: " + base::printable(response.error()));
    }
    link->vnet_header = response.vnet_header();
    Result<> joined =
        fail(Code::kUnsupported, "the guest's forwarder does not set addresses, routes and MTU");
    if (response.configured()) joined = join(*link, response.card() && !request.card().empty());
    if (!joined) {
        detachInGuest(interface.name);
        return joined;
    }
    base::log::info("network " + interface.name + ": attached");
    links_[interface.index] = std::move(link);
    return {};
}

Result<> GuestNetwork::join(Link& link, bool by_card) {
    if (by_card) {
        ARCA_TRY(link.card, around_.card->join(link.interface));
        return {};
    }
    ARCA_TRY(link.packets, openPacketSocket(link.interface.index));
    return connectLink(link);
}

uint32_t GuestNetwork::nextPort() {
    const uint32_t port = next_port_++;
    if (next_port_ == kFirstPort + 2 * kPortRange) next_port_ = kFirstPort;
    return port;
}

void GuestNetwork::serveNames() {
    if (names_ || links_.empty() || !nameServerListens(kEngineNameServer)) return;
    const auto served = [&]() -> Result<> {
        forwarder_api::ServeNamesRequest request;
        forwarder_api::ServeNamesResponse response;
        request.set_address(kEngineNameServer);
        request.set_vsock_port(nextPort());
        ARCA_TRY(names_,
                 NameServer::start(around_.transport, request.vsock_port(), kEngineNameServer));
        ARCA_CHECK(callForwarder(ARCA_FORWARDER_RPC("ServeNames"), request, response));
        if (response.success()) return {};
        return fail(Code::kInternal, "the guest's forwarder: " + base::printable(response.error()));
    }();
    if (served) return;
    names_.reset();
    base::log::warning("the engine's name server is not reachable from the guest: " +
                       served.error().message());
}

Result<> GuestNetwork::connectLink(Link& link) {
    link.ended = false;
    ARCA_TRY(UniqueFd stream, dial(link.port));
    ARCA_TRY(link.relay, FrameRelay::start(link.packets.fd.get(), std::move(stream),
                                           link.vnet_header, [this, &link](const std::string& why) {
                                               base::log::warning("network " + link.interface.name +
                                                                  ": " + why);
                                               link.ended = true;
                                               (void)::eventfd_write(wake_.get(), 1);
                                           }));
    return {};
}

void GuestNetwork::reconnectEnded() {
    for (auto& [index, link] : links_) {
        if (!link->ended) continue;
        link->relay.reset();
        if (link->reconnections++ == kMostReconnections) {
            base::log::error("network " + link->interface.name + ": given up");
            link->ended = false;
            continue;
        }
        auto connected = connectLink(*link);
        if (connected) continue;
        // An interface that is gone is told about by another way.
        base::log::warning("network " + link->interface.name + ": " + connected.error().message());
    }
}

void GuestNetwork::detachGone(const std::vector<network::Interface>& now) {
    for (auto entry = links_.begin(); entry != links_.end();) {
        const bool here = std::any_of(now.begin(), now.end(), [&](const auto& interface) {
            return interface.index == entry->first;
        });
        if (here) {
            ++entry;
            continue;
        }
        detachInGuest(entry->second->interface.name);
        entry = links_.erase(entry);
    }
}

void GuestNetwork::detachInGuest(const std::string& device) {
    forwarder_api::DetachNetworkRequest request;
    forwarder_api::DetachNetworkResponse response;
    request.set_device(device);
    auto done = callForwarder(ARCA_FORWARDER_RPC("DetachNetwork"), request, response);
    if (!done || !response.success()) {
        base::log::warning("network " + device + ": detach: " +
                           (done ? base::printable(response.error()) : done.error().message()));
    } else {
        base::log::info("network " + device + ": detached");
    }
}

Result<UniqueFd> GuestNetwork::dial(uint32_t port) {
    auto connection = around_.transport.dial(port, kDialLimit);
    if (connection) return connection;
    return fail(std::move(connection).error().withContext("reach the guest's forwarder"));
}

Result<> GuestNetwork::callForwarder(const char* path, const google::protobuf::MessageLite& request,
                                     google::protobuf::MessageLite& response) {
    ARCA_TRY(UniqueFd socket, dial(base::kForwarderPort));
    ARCA_TRY(const auto client, GrpcClient::open(std::move(socket)));
    CallOptions options;
    options.timeout = around_.call_limit;
    options.watches.push_back({stop_.fd(), []() -> Result<> {
                                   return fail(Code::kUnavailable, "the network is being ended");
                               }});
    auto done = client->call(path, request, response, options);
    if (done) return done;
    return fail(std::move(done).error().withContext("the guest's forwarder"));
}

}  // namespace arca::runtime
