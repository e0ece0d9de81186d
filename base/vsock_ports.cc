#include "base/vsock_ports.h"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/vm_sockets_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/unique_fd.h"

namespace arca::base {
namespace {

// All that listen: vsock uses TCP's number for that.
Result<> sendDump(int fd) {
    struct {
        nlmsghdr header;
        vsock_diag_req body;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.body.sdiag_family = AF_VSOCK;
    request.body.vdiag_states = 1U << TCP_LISTEN;
    if (::send(fd, &request, sizeof request, 0) == sizeof request) return {};
    return failErrno("ask for vsock sockets");
}

enum class Found { kYes, kNotYet, kNo };

Result<Found> lookThrough(const char* data, size_t size, uint32_t port) {
    while (size >= sizeof(nlmsghdr)) {
        nlmsghdr header{};
        std::memcpy(&header, data, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > size) break;
        const size_t body_size = header.nlmsg_len - NLMSG_HDRLEN;
        if (header.nlmsg_type == NLMSG_DONE) return Found::kNo;
        if (header.nlmsg_type == NLMSG_ERROR && body_size >= sizeof(int)) {
            int error = 0;
            std::memcpy(&error, data + NLMSG_HDRLEN, sizeof error);
            return fail(Code::kUnsupported,
                        "the kernel does not tell of vsock ports: " + errnoText(-error), -error);
        }
        vsock_diag_msg socket{};
        if (header.nlmsg_type == SOCK_DIAG_BY_FAMILY && body_size >= sizeof socket) {
            std::memcpy(&socket, data + NLMSG_HDRLEN, sizeof socket);
            if (socket.vdiag_state == TCP_LISTEN && socket.vdiag_src_port == port) {
                return Found::kYes;
            }
        }
        const size_t step = NLMSG_ALIGN(header.nlmsg_len);
        if (step >= size) break;
        data += step;
        size -= step;
    }
    return Found::kNotYet;
}

}  // namespace

Result<bool> isVsockPortListened(uint32_t port) {
    const UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!fd.valid()) return failErrno("make a netlink socket");
    ARCA_CHECK(sendDump(fd.get()));
    std::array<char, 16384> buffer{};
    while (true) {
        const ssize_t n = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("read vsock sockets");
        if (n == 0) return false;
        ARCA_TRY(const Found found, lookThrough(buffer.data(), static_cast<size_t>(n), port));
        if (found != Found::kNotYet) return found == Found::kYes;
    }
}

}  // namespace arca::base
