#include "runtime/monitor/frame_relay.h"

#include <endian.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "base/frame_stream.h"
#include "base/thread.h"
#include "runtime/monitor/vnet_header.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kVnetHeader = sizeof(VnetHeader);
constexpr size_t kLengthBytes = base::kFrameLengthBytes;

// Frames that are taken at once, and the room for one, with its length.
constexpr size_t kBatch = 32;
constexpr size_t kSlotBytes = 66 * 1024;
static_assert(kSlotBytes >= kLengthBytes + base::kMaxVnetFrame);

constexpr size_t kStreamBytes = size_t{512} * 1024;

// The socket is bound to no interface any more: that has been removed.
bool isUnbound(int packets) {
    sockaddr_ll address{};
    socklen_t size = sizeof address;
    return ::getsockname(packets, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
           address.sll_ifindex <= 0;
}

auto interfaceGone() {
    return fail(Code::kNotFound, "the interface has been removed");
}

// Frames from the packet socket, each in a slot of its own with room for its length before it.
class Batch {
 public:
    Batch() : bytes_(std::make_unique_for_overwrite<char[]>(kBatch * kSlotBytes)) {
        for (size_t i = 0; i < kBatch; ++i) {
            into_[i] = {slot(i) + kLengthBytes, kSlotBytes - kLengthBytes};
            messages_[i].msg_hdr.msg_iov = &into_[i];
            messages_[i].msg_hdr.msg_iovlen = 1;
        }
    }

    // Gives how many there are now; none is no error.
    Result<size_t> receive(int packets) {
        const int n = ::recvmmsg(packets, messages_.data(), kBatch, MSG_DONTWAIT, nullptr);
        if (n >= 0) return static_cast<size_t>(n);
        if (errno == EAGAIN || errno == EINTR) return size_t{0};
        // Also of one that was only taken down.
        if (errno == ENETDOWN && !isUnbound(packets)) return size_t{0};
        if (errno == ENETDOWN) return interfaceGone();
        return failErrno("receive packets");
    }

    // The first `count` as they go over the stream.
    std::span<iovec> forStream(size_t count, bool vnet_header) {
        size_t good = 0;
        for (size_t i = 0; i < count; ++i) {
            const size_t length = messages_[i].msg_len;
            if ((messages_[i].msg_hdr.msg_flags & MSG_TRUNC) != 0 || length <= kVnetHeader)
                continue;
            if (vnet_header) {
                out_[good++] = framed(slot(i), length);
                continue;
            }
            char* frame = slot(i) + kLengthBytes + kVnetHeader;
            const size_t bytes = length - kVnetHeader;
            VnetHeader header{};
            std::memcpy(&header, slot(i) + kLengthBytes, sizeof header);
            if (bytes > base::kMaxFrame || !completeChecksum(header, {frame, bytes})) continue;
            out_[good++] = framed(frame - kLengthBytes, bytes);
        }
        return {out_.data(), good};
    }

 private:
    char* slot(size_t i) { return bytes_.get() + i * kSlotBytes; }

    // `at`: room for the length, and the frame behind it.
    static iovec framed(char* at, size_t length) {
        const uint32_t big_endian = htobe32(static_cast<uint32_t>(length));
        std::memcpy(at, &big_endian, sizeof big_endian);
        return {at, kLengthBytes + length};
    }

    std::unique_ptr<char[]> bytes_;
    std::array<iovec, kBatch> into_{};
    std::array<mmsghdr, kBatch> messages_{};
    std::array<iovec, kBatch> out_{};
};

Result<> sendAll(int stream, std::span<iovec> parts) {
    while (!parts.empty()) {
        msghdr message{};
        message.msg_iov = parts.data();
        message.msg_iovlen = parts.size();
        const ssize_t n = ::sendmsg(stream, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("send to the guest's forwarder");
        auto left = static_cast<size_t>(n);
        while (!parts.empty() && left >= parts.front().iov_len) {
            left -= parts.front().iov_len;
            parts = parts.subspan(1);
        }
        if (left == 0) continue;
        parts.front().iov_base = static_cast<char*>(parts.front().iov_base) + left;
        parts.front().iov_len -= left;
    }
    return {};
}

// Frames for the packet socket, which wants an offload header before each.
class Sender {
 public:
    Sender(int packets, bool vnet_header) : packets_(packets), vnet_header_(vnet_header) {
        for (size_t i = 0; i < kMost; ++i) {
            parts_[2 * i] = {&plain_, sizeof plain_};
            messages_[i].msg_hdr.msg_iov = &parts_[2 * i + (vnet_header_ ? 1 : 0)];
            messages_[i].msg_hdr.msg_iovlen = vnet_header_ ? 1 : 2;
        }
    }

    // `frame` is only borrowed, until flush().
    Result<> add(std::span<const uint8_t> frame) {
        parts_[2 * count_ + 1] = {const_cast<uint8_t*>(frame.data()), frame.size()};
        if (++count_ < kMost) return {};
        return flush();
    }

    // One that the kernel does not take (malformed, too long for the interface, no room just now)
    // is lost, as on a wire.
    Result<> flush() {
        size_t done = 0;
        while (done < count_) {
            const auto left = static_cast<unsigned>(count_ - done);
            const int n = ::sendmmsg(packets_, &messages_[done], left, MSG_NOSIGNAL);
            if (n > 0) {
                done += static_cast<size_t>(n);
                continue;
            }
            if (errno == EINTR) continue;
            if (errno == ENXIO || (errno == ENETDOWN && isUnbound(packets_))) {
                return interfaceGone();
            }
            ++done;
        }
        count_ = 0;
        return {};
    }

 private:
    static constexpr size_t kMost = 64;

    const int packets_;
    const bool vnet_header_;
    VnetHeader plain_{};  // nothing is left to the hardware
    size_t count_ = 0;
    std::array<iovec, 2 * kMost> parts_{};
    std::array<mmsghdr, kMost> messages_{};
};

}  // namespace

FrameRelay::FrameRelay(int packets, UniqueFd stream, bool vnet_header, Ended ended)
    : packets_(packets),
      stream_(std::move(stream)),
      vnet_header_(vnet_header),
      ended_(std::move(ended)) {}

Result<std::unique_ptr<FrameRelay>> FrameRelay::start(int packets, UniqueFd stream,
                                                      bool vnet_header, Ended ended) {
    std::unique_ptr<FrameRelay> relay(
        new FrameRelay(packets, std::move(stream), vnet_header, std::move(ended)));
    if (relay->stop_.fd() < 0) return failErrno("make an eventfd");
    FrameRelay* raw = relay.get();
    ARCA_TRY(raw->to_guest_, base::startThread([raw] { raw->finish(raw->copyToGuest()); }));
    ARCA_TRY(raw->from_guest_, base::startThread([raw] { raw->finish(raw->copyFromGuest()); }));
    return relay;
}

FrameRelay::~FrameRelay() {
    (void)stop_.set();
    (void)::shutdown(stream_.get(), SHUT_RDWR);
    if (to_guest_.joinable()) to_guest_.join();
    if (from_guest_.joinable()) from_guest_.join();
}

void FrameRelay::finish(const Result<>& why) {
    if (!stop_.set()) return;
    (void)::shutdown(stream_.get(), SHUT_RDWR);
    ended_(why ? "the guest's forwarder has closed the connection" : why.error().message());
}

Result<> FrameRelay::copyToGuest() {
    Batch batch;
    while (!stop_.isSet()) {
        ARCA_TRY(const size_t count, batch.receive(packets_));
        if (count > 0) {
            ARCA_CHECK(sendAll(stream_.get(), batch.forStream(count, vnet_header_)));
            continue;
        }
        pollfd entries[2] = {{packets_, POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
        if (::poll(entries, 2, -1) < 0 && errno != EINTR) return failErrno("poll");
    }
    return {};
}

Result<> FrameRelay::copyFromGuest() {
    base::FrameReader reader(vnet_header_ ? base::kMaxVnetFrame : base::kMaxFrame, kStreamBytes);
    Sender sender(packets_, vnet_header_);
    while (!stop_.isSet()) {
        const std::span<uint8_t> space = reader.space();
        const ssize_t n = ::read(stream_.get(), space.data(), space.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failErrno("receive from the guest's forwarder");
        if (n == 0) return {};
        reader.added(static_cast<size_t>(n));
        while (true) {
            ARCA_TRY(const std::span<const uint8_t> frame, reader.next());
            if (frame.empty()) break;
            ARCA_CHECK(sender.add(frame));
        }
        ARCA_CHECK(sender.flush());
    }
    return {};
}

}  // namespace arca::runtime
