#include "vsock/vhost_user_channel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <string>
#include <utility>

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

struct WireHeader {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
};

constexpr uint32_t kVersionMask = 0x3;
constexpr uint32_t kVersion = 0x1;
constexpr uint32_t kFlagReply = 0x4;
constexpr uint32_t kFlagNeedReply = 0x8;

}  // namespace

// Bytes read: 0 when there are none yet.
Result<size_t> VhostUserChannel::receiveSome(std::byte* into, size_t size) {
    iovec part{into, size};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxMessageFds)> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t n = 0;
    do {
        n = ::recvmsg(fd_, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return size_t{0};
    if (n < 0 && errno == ECONNRESET) n = 0;
    if (n < 0) return failErrno("receive from the VMM");
    for (cmsghdr* cmsg = CMSG_FIRSTHDR(&header); cmsg != nullptr;
         cmsg = CMSG_NXTHDR(&header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
            message_.fds.emplace_back(fd);
        }
    }
    if ((static_cast<unsigned>(header.msg_flags) & MSG_CTRUNC) != 0 ||
        message_.fds.size() > kMaxMessageFds) {
        return fail(Code::kInvalidArgument, "message with too many descriptors");
    }
    if (n == 0) return fail(Code::kUnavailable, "the VMM closed the connection");
    return static_cast<size_t>(n);
}

Result<std::optional<VhostUserMessage>> VhostUserChannel::receive() {
    while (received_ < header_.size()) {
        ARCA_TRY(const size_t n,
                 receiveSome(header_.data() + received_, header_.size() - received_));
        if (n == 0) return std::optional<VhostUserMessage>();
        received_ += n;
    }
    WireHeader header{};
    std::memcpy(&header, header_.data(), sizeof header);
    if ((header.flags & kVersionMask) != kVersion || (header.flags & kFlagReply) != 0) {
        return fail(Code::kInvalidArgument, "message with flags " + std::to_string(header.flags));
    }
    if (header.size > kMaxPayload) {
        return fail(Code::kInvalidArgument, "message " + std::to_string(header.request) +
                                                " with a payload of " +
                                                std::to_string(header.size) + " bytes");
    }
    const size_t whole = header_.size() + header.size;
    while (received_ < whole) {
        ARCA_TRY(const size_t n, receiveSome(message_.payload.data() + (received_ - header_.size()),
                                             whole - received_));
        if (n == 0) return std::optional<VhostUserMessage>();
        received_ += n;
    }
    message_.request = static_cast<Request>(header.request);
    message_.needs_reply = (header.flags & kFlagNeedReply) != 0;
    message_.size = header.size;
    received_ = 0;
    return std::optional<VhostUserMessage>(std::exchange(message_, VhostUserMessage{}));
}

Result<> VhostUserChannel::reply(Request request, const void* payload, size_t size) {
    WireHeader header{static_cast<uint32_t>(request), kVersion | kFlagReply,
                      static_cast<uint32_t>(size)};
    std::array<iovec, 2> parts{iovec{&header, sizeof header},
                               iovec{const_cast<void*>(payload), size}};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    ssize_t n = 0;
    do {
        n = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return failErrno("reply to the VMM");
    if (static_cast<size_t>(n) != sizeof header + size) {
        return fail(Code::kUnavailable, "reply to the VMM: it does not read");
    }
    return {};
}

}  // namespace arca::vsock
