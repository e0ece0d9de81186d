#include "vmexec/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/socket.h"
#include "vmexec/signals.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;

namespace {

// Texts from the agent are empty or a terminal size; the plan comes in a descriptor. A small buffer
// keeps the memory of a held container small.
constexpr size_t kMaxText = 1024;
constexpr size_t kMaxFds = 4;

}  // namespace

Result<> Channel::send(BodyMessage type, int32_t value, std::string_view text, int fd) const {
    const std::string packet = proto::encodeBodyMessage(
        type, value, text.substr(0, base::kMaxMessageBytes - sizeof(proto::BodyHeader)));
    return base::sendMessage(socket_.get(), packet,
                             fd < 0 ? std::vector<int>{} : std::vector<int>{fd});
}

Result<Channel::Received> Channel::expect(BodyMessage type, std::string_view name,
                                          int signal_fd) const {
    if (signal_fd >= 0) ARCA_CHECK(waitReadableOrDie(socket_.get(), signal_fd));
    std::array<char, kMaxText> buffer{};
    iovec part{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxFds)> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t n = 0;
    do {
        n = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    const std::string what = "wait for " + std::string(name);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) {
        return fail(Code::kUnavailable, what + ": the agent is gone");
    }
    if (n < 0) return failErrno(what);
    Received received{};
    for (cmsghdr* cmsg = CMSG_FIRSTHDR(&header); cmsg != nullptr;
         cmsg = CMSG_NXTHDR(&header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(cmsg) + i * sizeof(int), sizeof number);
            received.fds.emplace_back(number);
        }
    }
    const auto packet = proto::decodeBodyMessage({buffer.data(), static_cast<size_t>(n)});
    const bool truncated =
        (static_cast<unsigned>(header.msg_flags) & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    if (truncated || !packet || packet->type != type) {
        return fail(Code::kInternal, what + ": got something else");
    }
    received.type = packet->type;
    received.value = packet->value;
    received.text = packet->text;
    return received;
}

void Channel::warn(std::string_view text) const {
    (void)send(BodyMessage::kWarning, 0, text);
}

void Channel::die(const base::Error& error) const {
    (void)send(BodyMessage::kFailure, error.sysErrno(), error.message());
    ::_exit(1);
}

}  // namespace arca::vmexec
