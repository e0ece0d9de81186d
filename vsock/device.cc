#include "vsock/device.h"

#include <string>
#include <utility>

#include "base/log.h"
#include "vsock/iovec_tools.h"

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
namespace log = base::log;

// Ports of streams that the host opens: a range that neither services nor the guest's own
// ephemeral ports are in.
constexpr uint32_t kFirstHostPort = 1U << 30U;
constexpr uint32_t kLastHostPort = (1U << 31U) - 1;

// Chains taken from the guest before events are looked at again, so that a guest that never stops
// sending keeps neither the VMM nor other streams waiting.
constexpr size_t kPacketsPerTurn = 256;

// The most that a queue can hold when it is stopped.
constexpr size_t kMaxLeftOver = Virtqueue::kMaxSize;

// A guest can reset and break its queues for ever, but not fill the disk with our log.
constexpr unsigned kMaxComplaints = 10;

}  // namespace

Device::Device(EventLoop& loop, HostDialer& dialer, const DeviceOptions& options)
    : loop_(loop),
      dialer_(dialer),
      options_(options),
      queues_{// Room for a header and a byte, or nothing could ever be sent.
              DeviceQueue(loop, Virtqueue(Virtqueue::Direction::kDeviceWrites, kHeaderBytes + 1)),
              DeviceQueue(loop, Virtqueue(Virtqueue::Direction::kDeviceReads))},
      next_host_port_(kFirstHostPort) {}

Device::~Device() = default;

Result<> Device::setMemory(GuestMemory memory) {
    // The old table stays mapped until the queues point into the new one.
    std::swap(memory_, memory);
    for (DeviceQueue& queue : queues_) {
        if (Result<> found = queue.relocate(memory_); !found) {
            for (DeviceQueue& each : queues_) (void)each.stop();
            return found;
        }
    }
    return {};
}

Result<> Device::startQueue(size_t index, UniqueFd kick) {
    DeviceQueue& queue = queues_[index];
    const bool was_running = queue.ring().running();
    ARCA_CHECK(queue.start(memory_, std::move(kick), event_index_));
    if (!was_running && !queue.resumed()) resetStreams();
    return {};
}

uint16_t Device::stopQueue(size_t index) {
    // What the guest sent before its VM stopped is not lost: it may have been its last words.
    if (index == kFromGuest) (void)takePackets(kMaxLeftOver);
    queues_[index].publish();
    return queues_[index].stop();
}

void Device::enableQueue(size_t index, bool enabled) {
    if (!enabled && index == kFromGuest) (void)takePackets(kMaxLeftOver);
    queues_[index].setEnabled(enabled);
}

void Device::resetStreams() {
    std::vector<Stream*> all;
    for (const auto& [key, stream] : streams_) all.push_back(stream.get());
    for (Stream* stream : all) {
        if (!stream->attached()) continue;
        stream->detach();
        (void)stream->takeOwedReset();
        settle(*stream);
    }
    resets_.clear();
}

void Device::detach() {
    (void)takePackets(kMaxLeftOver);
    for (DeviceQueue& queue : queues_) queue.clear();
    resetStreams();
    memory_ = GuestMemory();
    event_index_ = EventIndex::kOff;
}

void Device::breakDown(DeviceQueue& queue) {
    if (complaints_ < kMaxComplaints) {
        ++complaints_;
        log::warning("the guest broke the " +
                     std::string(&queue == &queues_[kToGuest] ? "receive" : "transmit") +
                     " queue: " + std::string(queue.ring().defect()));
    }
    queue.signalError();
    for (DeviceQueue& each : queues_) (void)each.stop();
    resetStreams();
}

Result<> Device::connect(UniqueFd client, uint32_t guest_port) {
    if (!live()) return fail(Code::kUnavailable, "connect: the guest has no vsock driver yet");
    if (streams_.size() >= options_.max_streams) {
        return fail(Code::kUnavailable, "connect: too many streams");
    }
    return addStream({newHostPort(guest_port), guest_port}, Stream::Origin::kHost,
                     std::move(client), nullptr);
}

bool Device::work() {
    bool more = false;
    if (live()) more = takePackets(kPacketsPerTurn);
    if (live()) more = sendPackets() || more;
    for (DeviceQueue& queue : queues_) queue.publish();
    dead_.clear();
    return more;
}

void Device::onStreamChanged(Stream& stream) {
    settle(stream);
}

bool Device::takePackets(size_t limit) {
    DeviceQueue& queue = queues_[kFromGuest];
    if (!queue.live()) return false;
    Virtqueue& ring = queue.ring();
    ring.suppressKicks();
    for (size_t taken = 0; taken < limit; ++taken) {
        Virtqueue::Chain chain;
        parts_.clear();
        switch (ring.peek(0, parts_, chain)) {
            case Virtqueue::Peek::kBroken:
                breakDown(queue);
                return false;
            case Virtqueue::Peek::kNone:
                if (!ring.armKicks()) return false;
                continue;
            case Virtqueue::Peek::kChain:
                break;
        }
        // A chain too short for a header is taken and forgotten, like any other bad packet.
        if (chain.bytes >= kHeaderBytes) {
            HeaderBytes header;
            copyFrom(parts_, header);
            onPacket(decodeHeader(header), parts_, chain.bytes - kHeaderBytes);
        }
        ring.complete(chain, 0);
        // At once, without an interrupt: a guest with another processor can go on.
        ring.publish();
    }
    return true;
}

void Device::onPacket(const PacketHeader& header, std::span<const iovec> parts, uint64_t bytes) {
    // As in the kernel's vhost: who lies about its own address is not answered.
    if (header.source_cid != options_.guest_cid) return;
    const StreamKey key{header.target_port, header.source_port};
    Stream* const stream = header.target_cid == kHostCid ? find(key) : nullptr;
    if (stream != nullptr && header.type == kTypeStream) {
        stream->onCredit(header.buffer_space, header.forwarded_bytes);
        if (header.op == Op::kData && header.length > bytes) {
            stream->onViolation();
        } else {
            onStreamPacket(*stream, header, parts);
        }
        settle(*stream);
        return;
    }
    if (header.op == Op::kReset) return;
    if (header.op == Op::kRequest && header.type == kTypeStream && header.target_cid == kHostCid) {
        onRequest(header);
        return;
    }
    postReset(header);
}

void Device::onStreamPacket(Stream& stream, const PacketHeader& header,
                            std::span<const iovec> parts) {
    switch (header.op) {
        case Op::kResponse:
            stream.onResponse();
            return;
        case Op::kReset:
            stream.onReset();
            return;
        case Op::kShutdown:
            stream.onShutdown(header.flags);
            return;
        case Op::kData:
            payload_.clear();
            (void)appendSlice(parts, kHeaderBytes, header.length, payload_);
            stream.onData(payload_, header.length);
            return;
        case Op::kCreditUpdate:
            return;
        case Op::kCreditRequest:
            stream.onCreditRequest();
            return;
        case Op::kRequest:
            break;
    }
    stream.onViolation();  // a second request, or a number without a meaning
}

void Device::onRequest(const PacketHeader& header) {
    if (streams_.size() >= options_.max_streams) {
        postReset(header);
        return;
    }
    Result<UniqueFd> socket = dialer_.dial(header.target_port);
    if (!socket) {
        log::debug("guest refused: " + socket.error().message());
        postReset(header);
        return;
    }
    const StreamKey key{header.target_port, header.source_port};
    if (!addStream(key, Stream::Origin::kGuest, std::move(*socket), &header)) postReset(header);
}

Result<> Device::addStream(StreamKey key, Stream::Origin origin, UniqueFd socket,
                           const PacketHeader* request) {
    StreamListener& listener = *this;
    auto stream = std::make_unique<Stream>(loop_, listener, key, origin, grantSpace());
    Stream& added = *stream;
    const uint32_t extra = added.bufferSpace() - kLeastSpace;
    if (Result<> started = added.start(std::move(socket)); !started) return started;
    shared_space_left_ -= extra;
    if (request != nullptr) added.onCredit(request->buffer_space, request->forwarded_bytes);
    streams_.emplace(&added, std::move(stream));
    by_key_[key.packed()] = &added;
    settle(added);
    return {};
}

Stream* Device::find(StreamKey key) const {
    const auto found = by_key_.find(key.packed());
    return found == by_key_.end() ? nullptr : found->second;
}

uint32_t Device::newHostPort(uint32_t guest_port) {
    // Ends, because there are fewer streams than ports.
    while (true) {
        const uint32_t port = next_host_port_;
        next_host_port_ = port == kLastHostPort ? kFirstHostPort : port + 1;
        if (find({port, guest_port}) == nullptr) return port;
    }
}

uint32_t Device::grantSpace() {
    return shared_space_left_ >= kMostSpace - kLeastSpace ? kMostSpace : kLeastSpace;
}

// Brings the lists and tables in line with what became of a stream.
void Device::settle(Stream& stream) {
    const auto owned = streams_.find(&stream);
    if (owned == streams_.end()) return;  // buried already
    const bool reset = stream.takeOwedReset();
    if (reset) postReset(stream.key());
    if (stream.attached()) {
        if (stream.readyToSend() && !stream.data_link.linked()) data_.pushBack(stream.data_link);
        if (stream.hasControl() && !stream.control_link.linked()) {
            control_.pushBack(stream.control_link);
        }
        return;
    }
    stream.control_link.unlink();
    stream.data_link.unlink();
    const auto named = by_key_.find(stream.key().packed());
    if (named != by_key_.end() && named->second == &stream) by_key_.erase(named);
    if (stream.phase() != Stream::Phase::kDead) return;
    shared_space_left_ += stream.bufferSpace() - kLeastSpace;
    dead_.push_back(std::move(owned->second));
    streams_.erase(owned);
}

}  // namespace arca::vsock
