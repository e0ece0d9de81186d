// Route netlink requests, as few as moving an interface takes. Single-threaded; blocks on the
// kernel, which answers at once.
//
// Source: netlink(7), rtnetlink(7).
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vmexec {

using Bytes = std::span<const char>;

// One request under construction: header, the fixed part of its type, attributes.
class NetlinkRequest {
 public:
    template <typename Fixed>
    NetlinkRequest(uint16_t type, uint16_t flags, const Fixed& fixed) {
        nlmsghdr header{};
        header.nlmsg_type = type;
        header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
        append(&header, sizeof header);
        append(&fixed, sizeof fixed);
    }

    void attribute(uint16_t type, Bytes value);
    void attribute(uint16_t type, uint32_t value);
    void attribute(uint16_t type, std::string_view text);  // with a NUL at its end

    // The whole message; its length is filled in here.
    [[nodiscard]] Bytes finish();

 private:
    void append(const void* data, size_t size);

    std::vector<char> bytes_;
};

// A message of the kernel's, without its header.
struct NetlinkMessage {
    uint16_t type = 0;
    Bytes payload;
};

// The fixed part of `message`, or nullptr when it is too short.
template <typename Fixed>
const Fixed* fixedPart(const NetlinkMessage& message) {
    if (message.payload.size() < sizeof(Fixed)) return nullptr;
    return reinterpret_cast<const Fixed*>(message.payload.data());
}

// Calls `function` for each attribute behind a fixed part of `fixed_size` bytes.
void forEachAttribute(const NetlinkMessage& message, size_t fixed_size,
                      const std::function<void(uint16_t type, Bytes value)>& function);

// A socket of the network namespace that the caller is in when it is made; it stays there.
class Netlink {
 public:
    static base::Result<Netlink> open();

    // Sends the request, gives each message of the answer to `on_message`, and returns when the
    // kernel says that it is done. Fails with the kernel's errno; `what` stands before that.
    base::Result<> call(NetlinkRequest request, std::string_view what,
                        const std::function<void(const NetlinkMessage&)>& on_message = {});

 private:
    explicit Netlink(base::UniqueFd socket) : socket_(std::move(socket)) {}

    base::UniqueFd socket_;
};

}  // namespace arca::vmexec
