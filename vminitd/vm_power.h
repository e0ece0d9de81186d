// The orderly end of a VM, and the one that is left when the agent itself fails.
//
// The first process of a VM must not end: the kernel would panic, and a panicked VM may hang for
// ever. Whatever happens leads to a power-off instead.
#pragma once

#include <functional>
#include <vector>

#include "vminitd/agent.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

// Writes what is not written yet and powers the VM off. Async-signal-safe.
[[noreturn]] void powerOff() noexcept;

// Makes a crash of this process a power-off. Once, before there are threads.
void powerOffOnCrash();

// Loop thread only. Only for a process that is the first of its VM.
class VmPower {
 public:
    VmPower(EventLoop& loop, Agent& agent) : loop_(loop), agent_(agent) {}

    // Kills every other process, lets those who wait for them hear of it, writes everything to the
    // disks and unmounts what can be; then calls `ready`. Whatever hangs, `ready` is called.
    void prepare(std::function<void()> ready);
    // prepare(), then the end.
    void shutDown();

 private:
    void unmount();
    void prepared();

    EventLoop& loop_;
    Agent& agent_;
    bool begun_ = false;
    bool prepared_ = false;
    std::vector<std::function<void()>> waiting_;
    Timer limit_;
};

}  // namespace arca::vminitd
