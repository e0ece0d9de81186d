#include "vmexec/netlink.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// What one read gives of the kernel's answer: all of a short one, a part of a dump.
constexpr size_t kReadBytes = 65536;

enum class Answer { kMore, kDone };

Result<Answer> takeAnswer(const nlmsghdr& header, Bytes payload, std::string_view what,
                          const std::function<void(const NetlinkMessage&)>& on_message) {
    if (header.nlmsg_type == NLMSG_DONE) return Answer::kDone;
    if (header.nlmsg_type != NLMSG_ERROR) {
        if (on_message) on_message({header.nlmsg_type, payload});
        return Answer::kMore;
    }
    int error = 0;
    if (payload.size() < sizeof error) {
        return fail(Code::kInternal, std::string(what) + ": a torn answer from the kernel");
    }
    std::memcpy(&error, payload.data(), sizeof error);
    if (error != 0) return failErrno(what, -error);
    return Answer::kDone;
}

}  // namespace

void NetlinkRequest::append(const void* data, size_t size) {
    const auto* begin = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), begin, begin + size);
    bytes_.resize(NLMSG_ALIGN(bytes_.size()));
}

void NetlinkRequest::attribute(uint16_t type, Bytes value) {
    rtattr header{};
    header.rta_type = type;
    header.rta_len = static_cast<uint16_t>(RTA_LENGTH(value.size()));
    append(&header, sizeof header);
    append(value.data(), value.size());
}

void NetlinkRequest::attribute(uint16_t type, uint32_t value) {
    attribute(type, Bytes(reinterpret_cast<const char*>(&value), sizeof value));
}

void NetlinkRequest::attribute(uint16_t type, std::string_view text) {
    const std::string with_nul(text);
    attribute(type, Bytes(with_nul.c_str(), with_nul.size() + 1));
}

Bytes NetlinkRequest::finish() {
    const auto length = static_cast<uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &length, sizeof length);
    return bytes_;
}

void forEachAttribute(const NetlinkMessage& message, size_t fixed_size,
                      const std::function<void(uint16_t type, Bytes value)>& function) {
    constexpr uint16_t kTypeMask = NLA_TYPE_MASK & 0xffff;
    size_t at = NLMSG_ALIGN(fixed_size);
    while (at + sizeof(rtattr) <= message.payload.size()) {
        rtattr header{};
        std::memcpy(&header, message.payload.data() + at, sizeof header);
        if (header.rta_len < sizeof header || at + header.rta_len > message.payload.size()) return;
        function(header.rta_type & kTypeMask,
                 message.payload.subspan(at + RTA_LENGTH(0), header.rta_len - RTA_LENGTH(0)));
        at += RTA_ALIGN(header.rta_len);
    }
}

Result<Netlink> Netlink::open() {
    UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!socket.valid()) return failErrno("make a netlink socket");
    return Netlink(std::move(socket));
}

Result<> Netlink::call(NetlinkRequest request, std::string_view what,
                       const std::function<void(const NetlinkMessage&)>& on_message) {
    const Bytes message = request.finish();
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    if (::sendto(socket_.get(), message.data(), message.size(), 0,
                 reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) < 0) {
        return failErrno(what);
    }
    std::vector<char> buffer(kReadBytes);
    while (true) {
        const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno(what);
        if (n == 0) return fail(Code::kInternal, std::string(what) + ": no answer");
        Bytes rest(buffer.data(), static_cast<size_t>(n));
        while (rest.size() >= sizeof(nlmsghdr)) {
            nlmsghdr header{};
            std::memcpy(&header, rest.data(), sizeof header);
            if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest.size()) break;
            const Bytes payload = rest.subspan(NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN);
            ARCA_TRY(const Answer answer, takeAnswer(header, payload, what, on_message));
            if (answer == Answer::kDone) return {};
            rest = rest.subspan(std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
        }
    }
}

}  // namespace arca::vmexec
