// The credit arithmetic of one stream: who may send how much.
//
// Each side tells the other how large its buffer is and how many bytes have left it so far; the
// counters run modulo 2^32. Source: VIRTIO 1.2, 5.10.6.3 "Buffer Space Management".
#pragma once

#include <algorithm>
#include <cstdint>

namespace arca::vsock {

class Credit {
 public:
    // `own_space`: the buffer that this side keeps for what the guest sends, in bytes.
    explicit Credit(uint32_t own_space) : own_space_(own_space) {}

    // --- What the guest may send to us.

    // Takes `bytes` from the guest into the buffer. False, and nothing is taken, when the guest had
    // not that much credit.
    [[nodiscard]] bool take(uint32_t bytes) {
        if (bytes > own_space_ - held()) return false;
        taken_ += bytes;
        return true;
    }
    // `bytes` (at most held()) have left the buffer.
    void forward(uint32_t bytes) { forwarded_ += bytes; }
    // Bytes taken and not yet forwarded; never more than the buffer.
    [[nodiscard]] uint32_t held() const { return taken_ - forwarded_; }
    // True when the guest knows of so much less space than there is that it should be told. Linux
    // has never more under way than its own buffer holds, however large ours is, and does not ask.
    [[nodiscard]] bool updateDue() const {
        const uint32_t window = peer_space_ == 0 ? own_space_ : std::min(own_space_, peer_space_);
        return forwarded_ - told_ >= std::max(window / 4, uint32_t{1});
    }
    // The two fields of a header; reading the second counts as telling the guest.
    [[nodiscard]] uint32_t ownSpace() const { return own_space_; }
    [[nodiscard]] uint32_t tellForwarded() { return told_ = forwarded_; }

    // --- What we may send to the guest.

    // Notes the fields of a packet from the guest.
    void onPeer(uint32_t peer_space, uint32_t peer_forwarded) {
        peer_space_ = peer_space;
        peer_forwarded_ = peer_forwarded;
    }
    // Bytes that the guest has room for. A guest that claims to have forwarded more than it was
    // sent, or shrinks its buffer below what is under way, gets nothing until its numbers are sane.
    [[nodiscard]] uint32_t sendable() const {
        const uint32_t under_way = sent_ - peer_forwarded_;
        return under_way < peer_space_ ? peer_space_ - under_way : 0;
    }
    void send(uint32_t bytes) { sent_ += bytes; }

 private:
    uint32_t own_space_;
    uint32_t taken_ = 0;
    uint32_t forwarded_ = 0;
    uint32_t told_ = 0;
    uint32_t peer_space_ = 0;
    uint32_t peer_forwarded_ = 0;
    uint32_t sent_ = 0;
};

}  // namespace arca::vsock
