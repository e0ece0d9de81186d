#include "hooks/tap_forwarder/rpc_service.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>

#include <chrono>
#include <exception>
#include <functional>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "hooks/tap_forwarder/dns_mappings.h"
#include "spec/version.h"
#include "tap_forwarder.grpc.pb.h"

namespace arca::tap_forwarder {

namespace v1 = arca::tapforwarder::v1;
using base::Result;

namespace {

// A call waits for the one before it, or some seconds for a name server.
constexpr int kMostThreads = 16;

uint8_t byteOf(uint32_t value) {
    return static_cast<uint8_t>(std::min<uint32_t>(value, UINT8_MAX));
}

network::Interface interfaceOf(const v1::AttachNetworkRequest& request) {
    network::Interface out;
    out.mtu = request.mtu();
    out.addresses.assign(request.addresses().begin(), request.addresses().end());
    for (const v1::Route& route : request.routes()) {
        out.routes.push_back({.destination = route.destination(),
                              .gateway = route.gateway(),
                              .source = route.source(),
                              .scope = byteOf(route.scope()),
                              .protocol = byteOf(route.protocol()),
                              .metric = route.metric(),
                              .onlink = route.onlink()});
    }
    for (const v1::Neighbour& neighbour : request.neighbours()) {
        out.neighbours.push_back({neighbour.address(), neighbour.mac_address()});
    }
    return out;
}

AttachRequest attachRequest(const v1::AttachNetworkRequest& request) {
    AttachRequest out;
    out.device = request.device();
    out.port = request.vsock_port();
    out.vnet_header = request.vnet_header() ? VnetHeader::kYes : VnetHeader::kNo;
    out.mac_address = request.mac_address();
    out.card = request.card();
    if (request.configured()) {
        out.wanted = interfaceOf(request);
    } else {
        out.simple = SimpleAddress{request.ip_address(), request.gateway(), request.netmask()};
    }
    return out;
}

DnsMappings mappingsOf(const v1::UpdateDNSMappingsRequest& request) {
    DnsMappings out;
    for (const auto& [name, peers] : request.networks()) {
        auto& containers = out[name];
        for (const v1::ContainerDNSInfo& one : peers.containers()) {
            containers.push_back({one.name(),
                                  one.id(),
                                  one.ip_address(),
                                  {one.aliases().begin(), one.aliases().end()}});
        }
    }
    return out;
}

void fill(v1::PacketStats& out, const PacketCounts& counts) {
    out.set_packets_sent(counts.packets_sent);
    out.set_packets_received(counts.packets_received);
    out.set_bytes_sent(counts.bytes_sent);
    out.set_bytes_received(counts.bytes_received);
    out.set_send_errors(counts.send_errors);
    out.set_receive_errors(counts.receive_errors);
}

// Failures are answers, so that every host can read them.
template <typename Response>
grpc::Status answer(Response& response, const std::string& call,
                    const std::function<Result<>()>& work) {
    std::string error;
    try {
        const auto done = work();
        if (!done) error = done.error().message();
    } catch (const std::exception& e) {
        error = e.what();
    }
    response.set_success(error.empty());
    if (!error.empty()) {
        base::log::error(call + ": " + error);
        // Of what a request had in it; a string field must be UTF-8.
        response.set_error(base::isUtf8(error) ? error : base::printable(error));
    }
    return grpc::Status::OK;
}

class Service final : public v1::TAPForwarder::Service {
 public:
    Service(Forwarder& forwarder, std::string dns_socket)
        : forwarder_(forwarder), dns_socket_(std::move(dns_socket)) {}

    grpc::Status AttachNetwork(grpc::ServerContext* /*context*/,
                               const v1::AttachNetworkRequest* request,
                               v1::AttachNetworkResponse* response) override {
        return answer(*response, "AttachNetwork", [&]() -> Result<> {
            const AttachRequest wanted = attachRequest(*request);
            ARCA_TRY(const NetworkState state, forwarder_.attach(wanted));
            response->set_mac_address(state.mac_address);
            response->set_configured(request->configured());
            response->set_card(!wanted.card.empty());
            response->set_vnet_header(wanted.card.empty() &&
                                      wanted.vnet_header == VnetHeader::kYes);
            return {};
        });
    }

    grpc::Status DetachNetwork(grpc::ServerContext* /*context*/,
                               const v1::DetachNetworkRequest* request,
                               v1::DetachNetworkResponse* response) override {
        return answer(*response, "DetachNetwork",
                      [&] { return forwarder_.detach(request->device()); });
    }

    grpc::Status ListNetworks(grpc::ServerContext* /*context*/,
                              const v1::ListNetworksRequest* /*request*/,
                              v1::ListNetworksResponse* response) override {
        for (const NetworkState& network : forwarder_.list()) {
            v1::NetworkInfo& info = *response->add_networks();
            info.set_device(network.device);
            info.set_ip_address(network.ip_address);
            info.set_gateway(network.gateway);
            info.set_vsock_port(network.port);
            info.set_mac_address(network.mac_address);
            fill(*info.mutable_stats(), network.counts);
        }
        return grpc::Status::OK;
    }

    grpc::Status GetStatus(grpc::ServerContext* /*context*/,
                           const v1::GetStatusRequest* /*request*/,
                           v1::GetStatusResponse* response) override {
        const Forwarder::Status status = forwarder_.status();
        response->set_version(spec::kProjectVersion);
        response->set_active_networks(status.networks);
        response->set_uptime_seconds(static_cast<uint64_t>(status.uptime.count()));
        fill(*response->mutable_total_stats(), status.total);
        return grpc::Status::OK;
    }

    grpc::Status UpdateDNSMappings(grpc::ServerContext* /*context*/,
                                   const v1::UpdateDNSMappingsRequest* request,
                                   v1::UpdateDNSMappingsResponse* response) override {
        return answer(*response, "UpdateDNSMappings", [&]() -> Result<> {
            ARCA_TRY(const uint32_t count, updateDns(mappingsOf(*request), dns_socket_));
            response->set_records_updated(count);
            return {};
        });
    }

    grpc::Status ServeNames(grpc::ServerContext* /*context*/, const v1::ServeNamesRequest* request,
                            v1::ServeNamesResponse* response) override {
        return answer(*response, "ServeNames", [&] {
            return forwarder_.serveNames(request->address(), request->vsock_port());
        });
    }

 private:
    Forwarder& forwarder_;
    const std::string dns_socket_;
};

}  // namespace

struct RpcService::Impl {
    Impl(Forwarder& forwarder, const std::string& dns_socket) : service(forwarder, dns_socket) {
        grpc::ServerBuilder builder;
        builder.RegisterService(&service);
        builder.SetResourceQuota(grpc::ResourceQuota("calls").SetMaxThreads(kMostThreads));
        builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
        builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MIN_POLLERS, 1);
        builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 2);
        builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
        builder.AddChannelArgument(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
        server = builder.BuildAndStart();
    }

    Service service;
    std::unique_ptr<grpc::Server> server;
};

RpcService::RpcService(Forwarder& forwarder, const std::string& dns_socket)
    : impl_(std::make_unique<Impl>(forwarder, dns_socket)) {}

RpcService::~RpcService() {
    impl_->server->Shutdown(std::chrono::system_clock::now());
}

void RpcService::serve(base::UniqueFd connection) {
    const int flags = ::fcntl(connection.get(), F_GETFL);
    if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0) return;
    grpc::AddInsecureChannelFromFd(impl_->server.get(), connection.release());
}

}  // namespace arca::tap_forwarder
