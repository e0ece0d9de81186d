// What a network has carried. Counted by its relay's thread, read by any.
#pragma once

#include <atomic>
#include <cstdint>

namespace arca::tap_forwarder {

// "Sent" left the guest, "received" came into it. Bytes are those of the frames, with their offload
// headers where they have some, without the lengths before them.
struct PacketCounts {
    uint64_t packets_sent = 0;
    uint64_t packets_received = 0;
    uint64_t bytes_sent = 0;
    uint64_t bytes_received = 0;
    uint64_t send_errors = 0;
    uint64_t receive_errors = 0;

    PacketCounts& operator+=(const PacketCounts& other) {
        packets_sent += other.packets_sent;
        packets_received += other.packets_received;
        bytes_sent += other.bytes_sent;
        bytes_received += other.bytes_received;
        send_errors += other.send_errors;
        receive_errors += other.receive_errors;
        return *this;
    }
};

class Counters {
 public:
    // By one thread only: no locked instruction is needed then.
    void sent(uint64_t packets, uint64_t bytes) {
        add(packets_sent_, packets);
        add(bytes_sent_, bytes);
    }
    void received(uint64_t packets, uint64_t bytes) {
        add(packets_received_, packets);
        add(bytes_received_, bytes);
    }
    void sendErrors(uint64_t count) { add(send_errors_, count); }
    void receiveErrors(uint64_t count) { add(receive_errors_, count); }

    [[nodiscard]] PacketCounts read() const {
        constexpr auto kOrder = std::memory_order_relaxed;
        return {packets_sent_.load(kOrder), packets_received_.load(kOrder),
                bytes_sent_.load(kOrder),   bytes_received_.load(kOrder),
                send_errors_.load(kOrder),  receive_errors_.load(kOrder)};
    }

 private:
    using Counter = std::atomic<uint64_t>;

    static void add(Counter& counter, uint64_t count) {
        counter.store(counter.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    }

    Counter packets_sent_{0};
    Counter packets_received_{0};
    Counter bytes_sent_{0};
    Counter bytes_received_{0};
    Counter send_errors_{0};
    Counter receive_errors_{0};
};

}  // namespace arca::tap_forwarder
