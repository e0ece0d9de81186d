// The device's way to the guest: resets first, then control packets, then data, stream by stream.
#include <algorithm>
#include <utility>

#include "vsock/device.h"
#include "vsock/iovec_tools.h"

namespace arca::vsock {
namespace {

// One turn of a stream: what one read from its socket may bring. Linux' driver offers buffers of
// 4 KiB, so several packets are filled by one system call.
constexpr size_t kBytesPerRead = size_t{64} << 10U;
constexpr size_t kBuffersPerRead = 32;
// The most that any driver must accept in one packet (Linux: VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
constexpr size_t kMaxPayload = size_t{64} << 10U;
// recvmsg(2) takes 1024 buffers; a chain has at most kMaxChain, each in at most kMaxRegions parts.
constexpr size_t kMaxReadParts = 1024;

// Reads and control packets in one turn of the loop.
constexpr size_t kSendsPerTurn = 256;

// Resets that wait because the guest offers no buffers. More are dropped: the guest's connect(2)
// then runs into its time limit, which is its own doing. Waiting instead could end in both sides
// waiting for the other.
constexpr size_t kMaxResets = 4096;

}  // namespace

bool Device::sendPackets() {
    DeviceQueue& queue = queues_[kToGuest];
    queue.ring().suppressKicks();
    for (size_t sends = 0; sends < kSendsPerTurn; ++sends) {
        const Sent sent = sendOne();
        if (!queue.live()) return false;
        if (sent == Sent::kNothing) return false;
        if (sent == Sent::kNoRoom && !queue.ring().armKicks()) return false;
    }
    return true;
}

Device::Sent Device::sendOne() {
    if (!resets_.empty()) {
        const Sent sent = sendHeader(resets_.front());
        if (sent == Sent::kYes) resets_.pop_front();
        return sent;
    }
    if (!control_.empty()) return sendControl(control_.front());
    if (!data_.empty()) return sendData(data_.front());
    return Sent::kNothing;
}

// Shows a buffer of the guest; its parts are the last of parts_.
bool Device::peekBuffer(uint16_t ahead, Virtqueue::Chain& chain) {
    DeviceQueue& queue = queues_[kToGuest];
    const Virtqueue::Peek peek = queue.ring().peek(ahead, parts_, chain);
    if (peek == Virtqueue::Peek::kBroken) breakDown(queue);
    return peek == Virtqueue::Peek::kChain;
}

Device::Sent Device::sendHeader(const PacketHeader& header) {
    Virtqueue::Chain chain;
    parts_.clear();
    if (!peekBuffer(0, chain)) return Sent::kNoRoom;
    copyTo(parts_, encodeHeader(header));
    queues_[kToGuest].ring().complete(chain, kHeaderBytes);
    return Sent::kYes;
}

Device::Sent Device::sendControl(Stream& stream) {
    // Room first: an op that is taken from the stream must be sent.
    if (!queues_[kToGuest].ring().ready()) return Sent::kNoRoom;
    stream.control_link.unlink();
    const std::optional<Op> op = stream.nextControl();
    if (!op) return Sent::kYes;
    PacketHeader header = headerFor(stream, *op);
    if (*op == Op::kShutdown) header.flags = stream.shutdownFlags();
    const Sent sent = sendHeader(header);
    settle(stream);
    return sent;
}

Device::Sent Device::sendData(Stream& stream) {
    stream.data_link.unlink();
    if (!stream.readyToSend()) {
        settle(stream);
        return Sent::kYes;
    }
    collectBuffers(std::min<size_t>(stream.sendable(), kBytesPerRead));
    if (buffers_.empty()) {
        settle(stream);
        return Sent::kNoRoom;
    }
    size_t left = stream.readFromHost(payload_);
    for (const Buffer& buffer : buffers_) {
        if (left == 0) break;
        PacketHeader header = headerFor(stream, Op::kData);
        const size_t length = std::min(left, buffer.room);
        header.length = static_cast<uint32_t>(length);
        copyTo(std::span(parts_).subspan(buffer.first_part), encodeHeader(header));
        queues_[kToGuest].ring().complete(buffer.chain,
                                          static_cast<uint32_t>(kHeaderBytes + length));
        left -= length;
    }
    settle(stream);  // back to the end of the line when it may have more
    return Sent::kYes;
}

// Makes one long read of the payload areas of the next buffers, with the headers left out. No
// buffers: there are none, or the queue broke.
void Device::collectBuffers(size_t wanted) {
    size_t room = 0;
    parts_.clear();
    payload_.clear();
    buffers_.clear();
    while (room < wanted && buffers_.size() < kBuffersPerRead) {
        Buffer buffer{{}, parts_.size(), 0};
        if (!peekBuffer(static_cast<uint16_t>(buffers_.size()), buffer.chain)) {
            if (!live()) buffers_.clear();
            return;
        }
        buffer.room = appendSlice(std::span(parts_).subspan(buffer.first_part), kHeaderBytes,
                                  std::min(kMaxPayload, wanted - room), payload_);
        while (payload_.size() > kMaxReadParts) {
            buffer.room -= payload_.back().iov_len;
            payload_.pop_back();
        }
        if (buffer.room == 0) return;
        room += buffer.room;
        buffers_.push_back(buffer);
    }
}

PacketHeader Device::headerFor(Stream& stream, Op op) const {
    PacketHeader header;
    header.source_cid = kHostCid;
    header.target_cid = options_.guest_cid;
    header.source_port = stream.key().host_port;
    header.target_port = stream.key().guest_port;
    header.op = op;
    header.buffer_space = stream.bufferSpace();
    header.forwarded_bytes = stream.tellForwarded();
    return header;
}

// A reset for a packet that belongs to no stream: everything turned round.
void Device::postReset(const PacketHeader& cause) {
    if (resets_.size() >= kMaxResets) return;
    PacketHeader header;
    header.source_cid = cause.target_cid;
    header.target_cid = options_.guest_cid;
    header.source_port = cause.target_port;
    header.target_port = cause.source_port;
    header.type = cause.type;
    header.op = Op::kReset;
    resets_.push_back(header);
}

void Device::postReset(StreamKey key) {
    PacketHeader cause;
    cause.target_cid = kHostCid;
    cause.source_cid = options_.guest_cid;
    cause.target_port = key.host_port;
    cause.source_port = key.guest_port;
    postReset(cause);
}

}  // namespace arca::vsock
