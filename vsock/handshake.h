// The lines of hybrid vsock: what a host program says to BASE to reach a port of the guest.
//
// The client sends "CONNECT <port>\n" and gets "OK <number>\n", then bytes; the number is the
// host's port of the new stream. Source: the hybrid vsock convention of Firecracker and
// cloud-hypervisor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace arca::vsock {

// The longest request line, line end included; "CONNECT 4294967295\n" has 19 bytes.
inline constexpr size_t kMaxConnectLine = 32;

struct ConnectLine {
    enum class Status { kIncomplete, kMalformed, kComplete };
    Status status = Status::kIncomplete;
    uint32_t port = 0;
    size_t bytes = 0;  // of the line, its end included; what follows is the stream's
};

// Looks at the first bytes that a client sent. The word is taken in any case, the port is decimal
// without sign; 2^32 - 1 ("any port") is malformed.
ConnectLine parseConnectLine(std::string_view received);

// "OK <host_port>\n".
std::string acceptLine(uint32_t host_port);

}  // namespace arca::vsock
