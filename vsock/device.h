// The vsock device: moves packets between the guest's two rings and host sockets.
//
// Driven from one thread: the vhost-user session sets it up, kicks and host sockets wake the loop,
// and after each turn of the loop work() does all that there is to do. What the guest can make it
// hold is bounded: streams by number, each stream's buffer, resets without a stream.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vsock/device_queue.h"
#include "vsock/event_loop.h"
#include "vsock/guest_memory.h"
#include "vsock/linked_list.h"
#include "vsock/packet.h"
#include "vsock/stream.h"

namespace arca::vsock {

// Connects to the host program that serves a port.
class HostDialer {
 public:
    virtual ~HostDialer() = default;
    // A connected, non-blocking stream socket; must not wait. Any failure refuses the guest.
    virtual base::Result<base::UniqueFd> dial(uint32_t port) = 0;
};

struct DeviceOptions {
    uint64_t guest_cid = kFirstGuestCid;
    size_t max_streams = 1024;
};

class Device final : private StreamListener {
 public:
    // Queues of the device that the VMM hands over. The third one of the specification, for events,
    // QEMU keeps to itself.
    static constexpr size_t kToGuest = 0;
    static constexpr size_t kFromGuest = 1;
    static constexpr size_t kQueues = 2;

    // Buffer space of one stream: the most, for bulk transfers, and the least, which every stream
    // gets. Streams above the least share kSharedSpace.
    static constexpr uint32_t kMostSpace = 256U << 10U;
    static constexpr uint32_t kLeastSpace = 32U << 10U;
    static constexpr uint64_t kSharedSpace = uint64_t{32} << 20U;

    Device(EventLoop& loop, HostDialer& dialer, const DeviceOptions& options);
    ~Device() override;

    // --- The VMM's side.

    [[nodiscard]] uint64_t guestCid() const { return options_.guest_cid; }
    [[nodiscard]] DeviceQueue& queue(size_t index) { return queues_[index]; }
    void setEventIndex(EventIndex event_index) { event_index_ = event_index; }
    // Replaces the memory table. Fails, with both queues stopped, when a running queue is not in
    // the new one.
    base::Result<> setMemory(GuestMemory memory);
    // Starts a queue. When the driver began anew, all streams of the old one are ended first.
    base::Result<> startQueue(size_t index, base::UniqueFd kick);
    // Takes what the guest has sent so far, then stops the queue; gives the index to continue with.
    uint16_t stopQueue(size_t index);
    // A disabled queue is left alone, whatever else its state; what it holds is taken first.
    void enableQueue(size_t index, bool enabled);
    // Ends all streams at once: the driver was reset.
    void resetStreams();
    // The VMM is gone: streams go on only while they have bytes for the host; see idle(). Queues
    // and memory are forgotten.
    void detach();

    // --- The host's side.

    // A host program wants guest port `guest_port`; the stream has `client` from here on. Fails
    // with kUnavailable when the driver is not running or there are too many streams; `client` is
    // closed then.
    base::Result<> connect(base::UniqueFd client, uint32_t guest_port);

    // --- The loop.

    // Moves packets until there is nothing to do or a fair share is done. True: more is to be done
    // and the loop should only look at events, not wait.
    bool work();
    [[nodiscard]] bool idle() const { return streams_.empty(); }
    [[nodiscard]] size_t streamCount() const { return streams_.size(); }

 private:
    void onStreamChanged(Stream& stream) override;

    [[nodiscard]] bool live() const { return queues_[0].live() && queues_[1].live(); }
    void breakDown(DeviceQueue& queue);

    // From the guest (device.cc).
    bool takePackets(size_t limit);
    void onPacket(const PacketHeader& header, std::span<const iovec> parts, uint64_t bytes);
    void onStreamPacket(Stream& stream, const PacketHeader& header, std::span<const iovec> parts);
    void onRequest(const PacketHeader& header);

    // Streams (device.cc).
    base::Result<> addStream(StreamKey key, Stream::Origin origin, base::UniqueFd socket,
                             const PacketHeader* request);
    [[nodiscard]] Stream* find(StreamKey key) const;
    [[nodiscard]] uint32_t newHostPort(uint32_t guest_port);
    [[nodiscard]] uint32_t grantSpace();
    void settle(Stream& stream);

    // To the guest (device_send.cc).
    enum class Sent { kYes, kNoRoom, kNothing };
    struct Buffer {  // one chain of the guest that is being filled
        Virtqueue::Chain chain;
        size_t first_part;  // in parts_
        size_t room;        // bytes of payload that were asked for
    };
    bool sendPackets();
    Sent sendOne();
    Sent sendHeader(const PacketHeader& header);
    Sent sendControl(Stream& stream);
    Sent sendData(Stream& stream);
    void collectBuffers(size_t wanted);
    [[nodiscard]] bool peekBuffer(uint16_t ahead, Virtqueue::Chain& chain);
    [[nodiscard]] PacketHeader headerFor(Stream& stream, Op op) const;
    void postReset(const PacketHeader& cause);
    void postReset(StreamKey key);

    EventLoop& loop_;
    HostDialer& dialer_;
    DeviceOptions options_;
    EventIndex event_index_ = EventIndex::kOff;
    GuestMemory memory_;
    std::array<DeviceQueue, kQueues> queues_;

    std::unordered_map<const Stream*, std::unique_ptr<Stream>> streams_;
    std::unordered_map<uint64_t, Stream*> by_key_;
    std::vector<std::unique_ptr<Stream>>
        dead_;                    // until the end of work(): callers are still in them
    LinkedList<Stream> control_;  // have something to tell the guest
    LinkedList<Stream> data_;     // may have bytes for the guest, which has room
    std::deque<PacketHeader> resets_;
    uint64_t shared_space_left_ = kSharedSpace;
    uint32_t next_host_port_;
    unsigned complaints_ = 0;

    // Scratch, kept to spare allocations.
    std::vector<iovec> parts_;
    std::vector<iovec> payload_;
    std::vector<Buffer> buffers_;
};

}  // namespace arca::vsock
