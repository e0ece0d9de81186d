#include "network/rtnl.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netlink/route/nexthop.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/scope_exit.h"
#include "base/strings.h"

namespace arca::network {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

namespace {

// What the kernel answered to a request.
struct Answer {
    int sys_errno = 0;
    std::string text;  // its own words, where it has some
};

// The words are in an attribute behind the error and, unless capped, the request.
std::string ownWords(const nlmsgerr& error) {
    const auto* header =
        reinterpret_cast<const nlmsghdr*>(reinterpret_cast<const char*>(&error) - NLMSG_HDRLEN);
    if ((header->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
    size_t at = NLMSG_HDRLEN + sizeof(nlmsgerr);
    if ((header->nlmsg_flags & NLM_F_CAPPED) == 0) {
        at += NLMSG_ALIGN(error.msg.nlmsg_len) - sizeof(nlmsghdr);
    }
    const auto* bytes = reinterpret_cast<const char*>(header);
    while (at + NLA_HDRLEN <= header->nlmsg_len) {
        const auto* attribute = reinterpret_cast<const nlattr*>(bytes + at);
        if (attribute->nla_len < NLA_HDRLEN || at + attribute->nla_len > header->nlmsg_len) break;
        if (attribute->nla_type == NLMSGERR_ATTR_MSG) {
            const std::string_view text(bytes + at + NLA_HDRLEN, attribute->nla_len - NLA_HDRLEN);
            return base::printable(text.substr(0, text.find('\0')));
        }
        at += NLA_ALIGN(attribute->nla_len);
    }
    return {};
}

int takeError(sockaddr_nl* /*from*/, nlmsgerr* error, void* into) {
    auto& answer = *static_cast<Answer*>(into);
    answer.sys_errno = -error->error;
    answer.text = ownWords(*error);
    return NL_STOP;
}

}  // namespace

tl::unexpected<base::Error> failNetlink(const std::string& what, int nl_error) {
    return fail(Code::kSystem, what + ": " + base::toLower(nl_geterror(nl_error)));
}

Result<Socket> openNetlink() {
    Socket socket(nl_socket_alloc());
    if (!socket) return failErrno("make a netlink socket", ENOMEM);
    const int error = nl_connect(socket.get(), NETLINK_ROUTE);
    if (error < 0) return failNetlink("connect to rtnetlink", error);
    const int on = 1;
    // Not on old kernels; then there is the errno.
    (void)::setsockopt(nl_socket_get_fd(socket.get()), SOL_NETLINK, NETLINK_EXT_ACK, &on,
                       sizeof on);
    return socket;
}

Result<> ask(nl_sock* socket, nl_msg* message, const std::string& what) {
    Answer answer;
    (void)nl_socket_modify_err_cb(socket, NL_CB_CUSTOM, takeError, &answer);
    // What else the socket is used for must not write to an answer that is gone.
    const base::ScopeExit forget(
        [&] { (void)nl_socket_modify_err_cb(socket, NL_CB_DEFAULT, nullptr, nullptr); });
    const int sent = nl_send_auto(socket, message);
    if (sent < 0) return failNetlink(what, sent);
    const int waited = nl_wait_for_ack(socket);
    if (answer.sys_errno != 0) {
        if (answer.text.empty()) return failErrno(what, answer.sys_errno);
        return failErrno(what + " (" + answer.text + ")", answer.sys_errno);
    }
    if (waited < 0) return failNetlink(what, waited);
    return {};
}

std::string textOf(nl_addr* address) {
    constexpr size_t kLongest = 64;
    if (address == nullptr) return {};
    std::array<char, kLongest> buffer{};
    return nl_addr2str(address, buffer.data(), buffer.size());
}

int allLinks(nl_sock* socket, nl_cache** cache) {
    return rtnl_link_alloc_cache(socket, AF_UNSPEC, cache);
}

Result<Parsed> parseAddress(int family, const std::string& text, Prefix prefix) {
    const auto wrong = [&] {
        constexpr size_t kShown = 128;
        return fail(
            Code::kInvalidArgument,
            std::string("malformed IPv") + (family == AF_INET ? "4" : "6") +
                (prefix == Prefix::kNeeded ? " address with prefix length \"" : " address \"") +
                base::printable(std::string_view(text).substr(0, kShown)) + "\"");
    };
    const size_t slash = text.find('/');
    if ((slash != std::string::npos) != (prefix == Prefix::kNeeded)) return wrong();
    const std::string host = text.substr(0, slash);
    if (host.find('\0') != std::string::npos) return wrong();
    std::array<unsigned char, sizeof(in6_addr)> bytes{};
    if (::inet_pton(family, host.c_str(), bytes.data()) != 1) return wrong();
    const size_t size = family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr);
    constexpr size_t kBits = 8;
    size_t length = size * kBits;
    if (slash != std::string::npos) {
        const auto number = base::parseNumber<uint16_t>(std::string_view(text).substr(slash + 1));
        if (!number || *number > length) return wrong();
        length = *number;
    }
    Address address(nl_addr_build(family, bytes.data(), size));
    if (!address) return failErrno("make an address", ENOMEM);
    nl_addr_set_prefixlen(address.get(), static_cast<int>(length));
    return Parsed{std::move(address), text};
}

Result<> changeLink(nl_sock* socket, unsigned index, const std::string& what, rtnl_link* wanted) {
    const Link now(rtnl_link_alloc());
    if (!now) return failErrno(what, ENOMEM);
    rtnl_link_set_ifindex(now.get(), static_cast<int>(index));
    nl_msg* raw = nullptr;
    const int error = rtnl_link_build_change_request(now.get(), wanted, 0, &raw);
    if (error < 0) return failNetlink(what, error);
    const Message message(raw);
    return ask(socket, message.get(), what);
}

Result<> takeUp(nl_sock* socket, unsigned index, const std::string& what) {
    const Link wanted(rtnl_link_alloc());
    if (!wanted) return failErrno(what, ENOMEM);
    rtnl_link_set_flags(wanted.get(), IFF_UP);
    return changeLink(socket, index, what, wanted.get());
}

Result<> addAddress(nl_sock* socket, unsigned index, const std::string& interface,
                    const Parsed& parsed) {
    const std::string what = "add " + parsed.text + " to " + interface;
    const InterfaceAddress address(rtnl_addr_alloc());
    if (!address) return failErrno(what, ENOMEM);
    rtnl_addr_set_ifindex(address.get(), static_cast<int>(index));
    int error = rtnl_addr_set_local(address.get(), parsed.address.get());
    if (error < 0) return failNetlink(what, error);
    rtnl_addr_set_scope(address.get(), RT_SCOPE_UNIVERSE);
    if (nl_addr_get_family(parsed.address.get()) == AF_INET6) {
        rtnl_addr_set_flags(address.get(), IFA_F_PERMANENT | IFA_F_NODAD);
    }
    nl_msg* raw = nullptr;
    error = rtnl_addr_build_add_request(address.get(), NLM_F_CREATE | NLM_F_EXCL, &raw);
    if (error < 0) return failNetlink(what, error);
    const Message message(raw);
    return ask(socket, message.get(), what);
}

void stopAutoconfiguration(const std::string& interface) {
    for (const char* file : {"accept_ra", "autoconf"}) {
        const auto done = base::writeControlFile(
            AT_FDCWD, "/proc/sys/net/ipv6/conf/" + interface + "/" + file, "0");
        if (!done) base::log::warning(done.error().message());
    }
}

Result<> addRoute(nl_sock* socket, unsigned index, const std::string& interface,
                  const RouteRequest& request) {
    const std::string what = "add a route to " + request.destination.text + " over " + interface;
    const RouteObject route(rtnl_route_alloc());
    rtnl_nexthop* hop = rtnl_route_nh_alloc();
    if (!route || hop == nullptr) return failErrno(what, ENOMEM);
    rtnl_route_nh_set_ifindex(hop, static_cast<int>(index));
    if (request.onlink) rtnl_route_nh_set_flags(hop, RTNH_F_ONLINK);
    if (request.gateway != nullptr) rtnl_route_nh_set_gateway(hop, request.gateway);
    rtnl_route_add_nexthop(route.get(), hop);  // owned by the route now
    const int family = nl_addr_get_family(request.destination.address.get());
    (void)rtnl_route_set_family(route.get(), static_cast<uint8_t>(family));
    rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
    rtnl_route_set_protocol(route.get(), request.protocol);
    rtnl_route_set_scope(route.get(), request.scope);
    if (request.metric != 0) rtnl_route_set_priority(route.get(), request.metric);
    (void)rtnl_route_set_type(route.get(), RTN_UNICAST);
    int error = rtnl_route_set_dst(route.get(), request.destination.address.get());
    if (error >= 0 && request.source != nullptr) {
        error = rtnl_route_set_pref_src(route.get(), request.source);
    }
    nl_msg* raw = nullptr;
    if (error >= 0) error = rtnl_route_build_add_request(route.get(), request.flags, &raw);
    if (error < 0) return failNetlink(what, error);
    const Message message(raw);
    return ask(socket, message.get(), what);
}

}  // namespace arca::network
