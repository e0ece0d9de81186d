// The device's side of one split virtqueue in guest memory.
//
// Everything in the ring is the guest's and may change at any moment, so each number is read once,
// checked, and used from the copy. A ring that breaks a rule is broken for good: the caller stops
// the device until the driver resets it. Source: VIRTIO 1.2, 2.7 "Split Virtqueues"; indirect
// tables are not offered and count as broken.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vsock/guest_memory.h"

namespace arca::vsock {

// Where the VMM says that the three parts of a ring are (its virtual addresses).
struct RingAddresses {
    uint64_t descriptors = 0;
    uint64_t available = 0;
    uint64_t used = 0;
};

enum class EventIndex { kOff, kOn };  // VIRTIO_F_EVENT_IDX

class Virtqueue {
 public:
    static constexpr uint32_t kMaxSize = 32768;
    // Descriptors in one chain. A driver needs one or two, or one for each page of a packet without
    // copying; the bound keeps what a hostile ring costs per chain small.
    static constexpr size_t kMaxChain = 128;

    // Which way the buffers of this queue are meant.
    enum class Direction { kDeviceReads, kDeviceWrites };

    // A chain that peek() found. Its buffers are the last `parts` entries of the caller's vector.
    struct Chain {
        uint16_t head = 0;
        size_t parts = 0;
        uint64_t bytes = 0;
    };
    enum class Peek { kNone, kChain, kBroken };

    // `least_bytes`: a chain with less room than that breaks the queue.
    explicit Virtqueue(Direction direction, uint64_t least_bytes = 0)
        : direction_(direction), least_bytes_(least_bytes) {}

    // Finds the ring in `memory` and continues at index `next_available`. Fails with
    // kInvalidArgument when the size is no power of two up to kMaxSize, or a part is not inside one
    // region or not aligned. `memory` must outlive the ring's use.
    base::Result<> start(const GuestMemory& memory, uint32_t size, const RingAddresses& addresses,
                         uint16_t next_available, EventIndex event_index);
    // Finds a running ring in a new memory table; indices stay.
    base::Result<> relocate(const GuestMemory& memory);
    void stop() { size_ = 0; }
    [[nodiscard]] bool running() const { return size_ != 0; }
    // What a driver would continue with; meaningful after stop(), too.
    [[nodiscard]] uint16_t nextAvailable() const { return next_available_; }
    // What is wrong with the ring, once peek() said kBroken.
    [[nodiscard]] std::string_view defect() const { return defect_; }

    // Looks at the chain `ahead` places behind the next one without taking it. Appends its buffers
    // to `parts`. On kNone and kBroken `parts` is as it was.
    Peek peek(uint16_t ahead, std::vector<iovec>& parts, Chain& chain);
    // True when at least one chain waits. A broken count of chains is for peek() to say.
    [[nodiscard]] bool ready() const;

    // Takes the next chain, which peek(0) has shown, and gives it back to the driver with `written`
    // bytes in it. The driver sees it after publish().
    void complete(const Chain& chain, uint32_t written);
    // Shows the driver all completed chains.
    void publish();
    // True when the driver wants an interrupt for what has been published since the last call.
    [[nodiscard]] bool wantsInterrupt();

    // Tells the driver that its kicks are not needed for now (a hint, it may kick all the same).
    void suppressKicks();
    // Asks for a kick with the next chain. True when one came in the meantime: no kick is sent for
    // it.
    [[nodiscard]] bool armKicks();

 private:
    base::Result<> locate(const GuestMemory& memory, uint32_t size);
    Peek broken(std::string_view why);

    Direction direction_;
    uint64_t least_bytes_;
    const GuestMemory* memory_ = nullptr;
    RingAddresses addresses_;
    EventIndex event_index_ = EventIndex::kOff;
    uint32_t size_ = 0;  // 0: stopped
    std::byte* descriptors_ = nullptr;
    std::byte* available_ = nullptr;
    std::byte* used_ = nullptr;
    uint16_t next_available_ = 0;
    uint16_t next_used_ = 0;
    uint16_t published_ = 0;    // `used.idx` as the driver sees it
    uint16_t interrupted_ = 0;  // `used.idx` when it was last decided about an interrupt
    bool kicks_suppressed_ = false;
    std::string_view defect_;
};

}  // namespace arca::vsock
