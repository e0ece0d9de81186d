// Moves Ethernet frames between an interface of this host and a guest's forwarder.
//
// Two threads, one a direction, each of which waits for its source and then takes all that is
// there: many frames, two system calls. A guest that does not read fills the packet socket's
// buffer, and the kernel drops what comes then, as on any wire.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/stop_signal.h"
#include "base/unique_fd.h"

namespace arca::runtime {

class FrameRelay {
 public:
    // Called once, on a thread of the relay's, when it ends by itself: why. The kernel does not
    // tell a packet socket when its interface goes; the next frame from the guest finds that out.
    using Ended = std::function<void(std::string why)>;

    // `packets`: as of openPacketSocket(), borrowed, and to outlive the relay. `stream`: frames
    // with their lengths (base/frame_stream.h). `vnet_header`: those on the stream have offload
    // headers; without, what the sender left to the hardware is done here.
    static base::Result<std::unique_ptr<FrameRelay>> start(int packets, base::UniqueFd stream,
                                                           bool vnet_header, Ended ended);
    ~FrameRelay();  // ends both threads and waits for them
    FrameRelay(const FrameRelay&) = delete;
    FrameRelay& operator=(const FrameRelay&) = delete;

 private:
    FrameRelay(int packets, base::UniqueFd stream, bool vnet_header, Ended ended);
    base::Result<> copyToGuest();
    base::Result<> copyFromGuest();
    // What ends one direction ends the other.
    void finish(const base::Result<>& why);

    const int packets_;
    const base::UniqueFd stream_;
    const bool vnet_header_;
    const Ended ended_;
    base::StopSignal stop_;
    std::thread to_guest_;
    std::thread from_guest_;
};

}  // namespace arca::runtime
