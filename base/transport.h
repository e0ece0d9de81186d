// How the host and a sandbox reach each other: connected stream sockets by port number.
//
// Three kinds, one interface, used on both sides:
//   vsock://CID[:PORT]  AF_VSOCK (a host with vhost-vsock, and every guest)
//   hvsock://PATH       hybrid vsock of cloud-hypervisor, Firecracker and arca-vsock: a Unix socket
//   PATH for host to
//                       guest, PATH_<port> for guest to host. Host side only
//   unix://DIR          a folder with one socket file a port, for sandboxes without a VM and for
//   tests
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// Port of the agent's gRPC service.
inline constexpr uint32_t kAgentPort = 1024;
// Port of the control service of a guest's arca-tap-forwarder.
inline constexpr uint32_t kForwarderPort = 5555;
// First port of the host's counter for stdio streams.
inline constexpr uint32_t kFirstStdioPort = 0x10000000;
// CID of the host as a guest sees it.
inline constexpr uint32_t kHostCid = 2;

// A port that is listened on. Accepts until destroyed; what it created in the file system goes with
// it.
class Listener {
 public:
    virtual ~Listener() = default;
    // For poll(2): readable means that accept() will not block.
    [[nodiscard]] virtual int fd() const = 0;
    // One connection, O_CLOEXEC; blocks unless fd() was readable. EAGAIN: who came is not the other
    // side of the transport (any CID reaches any port of vsock) and was turned away.
    virtual Result<UniqueFd> accept() = 0;
};

class Transport {
 public:
    virtual ~Transport() = default;

    // A connected stream socket (blocking, O_CLOEXEC) to `port` of the other side. kUnavailable
    // when nobody listens or the other side is gone; kDeadlineExceeded after `timeout`.
    virtual Result<UniqueFd> dial(uint32_t port, std::chrono::milliseconds timeout) = 0;

    // The same without waiting: a non-blocking socket whose connection may still be under way.
    // Writable or broken (poll(2)) means that it is settled, and finishDial() tells how. Not for
    // hvsock (kUnsupported), which has a conversation first.
    virtual Result<UniqueFd> beginDial(uint32_t port) = 0;

    // Listens on `port` of this side. EADDRINUSE where somebody does already.
    virtual Result<std::unique_ptr<Listener>> listen(uint32_t port) = 0;

    // Whether somebody listens on `port` of this side, asked without troubling him where the kernel
    // tells. kUnsupported where nothing can tell. Source: sock_diag(7).
    virtual Result<bool> isListened(uint32_t port) = 0;

    // The address in the form that openTransport() takes.
    [[nodiscard]] virtual std::string address() const = 0;
};

// How the connection of a settled beginDial() socket ended: kUnavailable when it was refused.
Result<> finishDial(int fd);

// Makes a transport from its address. kInvalidArgument names what is wrong with the form; nothing
// is connected yet.
Result<std::unique_ptr<Transport>> openTransport(std::string_view address);

}  // namespace arca::base
