// The messages of the vhost-user protocol on their socket: framing, descriptors, limits.
//
// Source: QEMU's docs/interop/vhost-user.rst. Numbers are in host byte order. A message is a header
// of 12 bytes, a payload, and descriptors that come with the header's first byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vsock {

enum class Request : uint32_t {
    kGetFeatures = 1,
    kSetFeatures = 2,
    kSetOwner = 3,
    kResetOwner = 4,
    kSetMemTable = 5,
    kSetVringNum = 8,
    kSetVringAddr = 9,
    kSetVringBase = 10,
    kGetVringBase = 11,
    kSetVringKick = 12,
    kSetVringCall = 13,
    kSetVringErr = 14,
    kGetProtocolFeatures = 15,
    kSetProtocolFeatures = 16,
    kGetQueueNum = 17,
    kSetVringEnable = 18,
    kGetConfig = 24,
    kSetConfig = 25,
    kResetDevice = 34,
};

// The largest payload that any message of ours has: a memory table of eight regions has 264 bytes,
// configuration 268.
inline constexpr size_t kMaxPayload = 512;
// Descriptors with one message: one for each memory region.
inline constexpr size_t kMaxMessageFds = 8;

struct VhostUserMessage {
    Request request{};  // as received: may be a number without a name
    bool needs_reply = false;
    uint32_t size = 0;
    std::array<std::byte, kMaxPayload> payload{};
    std::vector<base::UniqueFd> fds;

    // A T out of the payload. nullopt when it ends before.
    template <typename T>
    [[nodiscard]] std::optional<T> at(size_t offset) const {
        if (offset > size || sizeof(T) > size - offset) return std::nullopt;
        T value;
        std::memcpy(&value, payload.data() + offset, sizeof value);
        return value;
    }
};

// Reads messages from a socket without ever waiting, and writes replies.
class VhostUserChannel {
 public:
    // `fd` is borrowed.
    explicit VhostUserChannel(int fd) : fd_(fd) {}

    // The next whole message; nullopt when the rest has not come yet. Fails with kUnavailable when
    // the VMM has closed the connection, with kInvalidArgument on a message that is too large, of
    // another version, or with too many descriptors.
    base::Result<std::optional<VhostUserMessage>> receive();

    // Sends a reply to `request`. Fails when it cannot be sent at once: a VMM waits for its reply,
    // so its socket is empty.
    base::Result<> reply(Request request, const void* payload, size_t size);

 private:
    base::Result<size_t> receiveSome(std::byte* into, size_t size);

    int fd_;
    std::array<std::byte, 12> header_{};
    size_t received_ = 0;  // of header and payload together
    VhostUserMessage message_;
};

}  // namespace arca::vsock
