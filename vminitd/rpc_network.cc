// SandboxContext: links, addresses, routes, resolver files, proxied sockets.
#include <algorithm>

#include "base/strings.h"
#include "network/interface.h"
#include "vminitd/resolver_files.h"
#include "vminitd/rpc_context.h"
#include "vminitd/rpc_status.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using grpc::Status;
using grpc::StatusCode;

ServerUnaryReactor* ContextService::IpLinkSet(CallbackServerContext* context,
                                              const wire::IpLinkSetRequest* request,
                                              wire::IpLinkSetResponse*) {
    const auto work = [request] {
        const auto mtu = request->has_mtu() ? std::optional(request->mtu()) : std::nullopt;
        return systemStatus("ipLinkSet",
                            network::setLink(request->interface(), request->up(), mtu));
    };
    return onMachine(context, state_.files, "ipLinkSet", work,
                     driversForLink(request->interface()));
}

ServerUnaryReactor* ContextService::IpAddrAdd(CallbackServerContext* context,
                                              const wire::IpAddrAddRequest* request,
                                              wire::IpAddrAddResponse*) {
    return onMachine(context, state_.files, "ipAddrAdd", [request] {
        return systemStatus("ipAddrAdd",
                            network::addAddress(request->interface(), request->ipv4address(),
                                                request->ipv6address()));
    });
}

ServerUnaryReactor* ContextService::IpRouteAddLink(CallbackServerContext* context,
                                                   const wire::IpRouteAddLinkRequest* request,
                                                   wire::IpRouteAddLinkResponse*) {
    return onMachine(context, state_.files, "ipRouteAddLink", [request] {
        return systemStatus(
            "ipRouteAddLink",
            network::addLinkRoute(request->interface(), {.ipv4_destination = request->dstipv4addr(),
                                                         .ipv4_source = request->srcipv4addr(),
                                                         .ipv6_destination = request->dstipv6addr(),
                                                         .ipv6_source = request->srcipv6addr()}));
    });
}

ServerUnaryReactor* ContextService::IpRouteAddDefault(CallbackServerContext* context,
                                                      const wire::IpRouteAddDefaultRequest* request,
                                                      wire::IpRouteAddDefaultResponse*) {
    return onMachine(context, state_.files, "ipRouteAddDefault", [request] {
        return systemStatus("ipRouteAddDefault",
                            network::addDefaultRoute(request->interface(), request->ipv4gateway(),
                                                     request->ipv6gateway()));
    });
}

// ---- resolver files: also in the local sandbox, where they are the container's own ----

ServerUnaryReactor* ContextService::ConfigureDns(CallbackServerContext* context,
                                                 const wire::ConfigureDnsRequest* request,
                                                 wire::ConfigureDnsResponse*) {
    return onWorker(context, state_.files, [this, request] {
        const auto location = pathOf(request->location());
        if (!location) return systemStatus("configureDns", location.error());
        const auto text = resolvConf(
            {.nameservers = {request->nameservers().begin(), request->nameservers().end()},
             .domain = request->has_domain() ? std::optional(request->domain()) : std::nullopt,
             .search_domains = {request->searchdomains().begin(), request->searchdomains().end()},
             .options = {request->options().begin(), request->options().end()}});
        if (!text) return systemStatus("configureDns", text.error());
        return systemStatus("configureDns", replaceEtcFile(*location, "resolv.conf", *text));
    });
}

ServerUnaryReactor* ContextService::ConfigureHosts(CallbackServerContext* context,
                                                   const wire::ConfigureHostsRequest* request,
                                                   wire::ConfigureHostsResponse*) {
    return onWorker(context, state_.files, [this, request] {
        const auto location = pathOf(request->location());
        if (!location) return systemStatus("configureHosts", location.error());
        std::vector<HostsEntry> entries;
        for (const auto& entry : request->entries()) {
            entries.push_back(
                {.address = entry.ipaddress(),
                 .names = {entry.hostnames().begin(), entry.hostnames().end()},
                 .comment = entry.has_comment() ? std::optional(entry.comment()) : std::nullopt});
        }
        const auto text = hostsText(
            entries, request->has_comment() ? std::optional(request->comment()) : std::nullopt);
        if (!text) return systemStatus("configureHosts", text.error());
        return systemStatus("configureHosts", replaceEtcFile(*location, "hosts", *text));
    });
}

// ---- proxies ----

namespace {

// Ids are the host's own; they name nothing in the guest.
Result<> checkProxyId(const std::string& id) {
    constexpr size_t kMaxBytes = 255;
    if (!id.empty() && id.size() <= kMaxBytes && base::printable(id) == id) return {};
    return base::fail(Code::kInvalidArgument, "malformed id");
}

}  // namespace

ServerUnaryReactor* ContextService::ProxyVsock(CallbackServerContext* context,
                                               const wire::ProxyVsockRequest* request,
                                               wire::ProxyVsockResponse*) {
    if (!state_.proxies) return answer(context, refusedWithoutHost("proxyVsock"));
    const auto valid = checkProxyId(request->id());
    if (!valid) return answer(context, systemStatus("proxyVsock", valid.error()));
    auto path = pathOf(request->guestpath());
    if (!path) return answer(context, systemStatus("proxyVsock", path.error()));
    if (request->action() != wire::ProxyVsockRequest::INTO &&
        request->action() != wire::ProxyVsockRequest::OUT_OF) {
        return answer(context, {StatusCode::INVALID_ARGUMENT, "proxyVsock: unknown action"});
    }
    // VMADDR_PORT_ANY: some port that nobody would know of.
    if (request->vsock_port() == UINT32_MAX) {
        return answer(context, {StatusCode::INVALID_ARGUMENT, "proxyVsock: no port is given"});
    }
    ProxyRequest proxy{.id = request->id(),
                       .direction = request->action() == wire::ProxyVsockRequest::INTO
                                        ? ProxyRequest::Direction::kInto
                                        : ProxyRequest::Direction::kOutOf,
                       .port = request->vsock_port(),
                       .path = std::move(*path),
                       .permissions = request->has_guestsocketpermissions()
                                          ? std::optional(request->guestsocketpermissions())
                                          : std::nullopt};
    return onLoop(context, [proxies = state_.proxies, proxy = std::move(proxy)](auto finish) {
        proxies->start(proxy, [finish](const Result<>& started) {
            finish(systemStatus("proxyVsock", started));
        });
    });
}

ServerUnaryReactor* ContextService::StopVsockProxy(CallbackServerContext* context,
                                                   const wire::StopVsockProxyRequest* request,
                                                   wire::StopVsockProxyResponse*) {
    if (!state_.proxies) return answer(context, refusedWithoutHost("stopVsockProxy"));
    return onLoop(context, [proxies = state_.proxies, id = request->id()](auto finish) {
        proxies->stop(id, [finish](const Result<>& stopped) {
            finish(systemStatus("stopVsockProxy", stopped));
        });
    });
}

}  // namespace arca::vminitd
