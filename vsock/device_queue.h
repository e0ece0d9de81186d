// One virtqueue of the device together with what the VMM said about it: place, state, and the
// descriptors for kicks and interrupts.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vsock/event_loop.h"
#include "vsock/guest_memory.h"
#include "vsock/virtqueue.h"

namespace arca::vsock {

class DeviceQueue final : public EventHandler {
 public:
    DeviceQueue(EventLoop& loop, Virtqueue ring) : ring_(ring), kick_(loop, *this) {}

    // Set-up; each fails with kFailedPrecondition while the queue runs.
    base::Result<> setSize(uint32_t size);
    base::Result<> setAddresses(const RingAddresses& addresses);
    base::Result<> setBase(uint32_t next_available);

    // Starts the queue in `memory`; `kick` (an eventfd) tells of new chains. A queue that runs gets
    // the new descriptor only.
    base::Result<> start(const GuestMemory& memory, base::UniqueFd kick, EventIndex event_index);
    // Stops it and gives the index to continue with.
    uint16_t stop();
    // Finds a started queue in a new memory table.
    base::Result<> relocate(const GuestMemory& memory);
    // True when start() continued where the last stop() ended: the VM was paused. False: the driver
    // began anew.
    [[nodiscard]] bool resumed() const { return resumed_; }

    // Where to signal interrupts, and that the queue is broken; an invalid descriptor: nowhere.
    void setInterrupt(base::UniqueFd fd);
    void setError(base::UniqueFd fd);
    void setEnabled(bool enabled) { enabled_ = enabled; }

    // True when chains may be taken from it.
    [[nodiscard]] bool live() const { return enabled_ && ring_.running(); }
    [[nodiscard]] Virtqueue& ring() { return ring_; }
    [[nodiscard]] const Virtqueue& ring() const { return ring_; }

    // Shows the driver what was completed, and interrupts it if it wants that.
    void publish();
    // Tells the VMM that the queue is broken.
    void signalError();
    // Forgets all that the VMM said.
    void clear();

    // A kick. Nothing to do: after every turn of the loop the device looks at its rings, and the
    // counter of an edge-triggered eventfd need not be read.
    void onEvents(uint32_t /*events*/) override {}

 private:
    Virtqueue ring_;
    Watch kick_;
    base::UniqueFd interrupt_;
    base::UniqueFd error_;
    RingAddresses addresses_;
    uint32_t size_ = 0;
    uint16_t base_ = 0;
    uint16_t stopped_at_ = 0;
    bool resumed_ = false;
    bool enabled_ = false;
};

}  // namespace arca::vsock
