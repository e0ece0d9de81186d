// The data plane of one network: frames between a TAP device and the host's stream.
//
// One thread a network, which waits for the device, the stream and the next connection at once.
// From the device it reads frames until there is none left or its buffer is full, and writes them
// to the stream in one piece; from the stream it reads what there is and gives each whole frame to
// the device. A host that does not read is not waited for: the frames stay in the device's queue,
// which drops what it cannot hold, as a slow wire does.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/frame_stream.h"
#include "base/result.h"
#include "base/stop_signal.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "hooks/tap_forwarder/counters.h"
#include "network/tap_device.h"

namespace arca::tap_forwarder {

using network::VnetHeader;

class Relay {
 public:
    struct Parts {
        std::string name;       // of the network, for the log
        base::UniqueFd device;  // non-blocking; gives and takes one frame a call
        VnetHeader vnet_header = VnetHeader::kNo;
        // Where the host connects. One connection at a time: a new one takes over from the one
        // before, for a host that was restarted may not have been able to end that.
        std::unique_ptr<base::Listener> listener;
        std::function<void()> connected{};  // after each connection; on the relay's thread
    };

    static base::Result<std::unique_ptr<Relay>> start(Parts parts);
    // Ends at once, whatever is under way: the device, the connection and the listener are closed.
    ~Relay();
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;

    [[nodiscard]] PacketCounts counts() const { return counters_.read(); }

 private:
    explicit Relay(Parts parts);
    void run();
    void waitAndServe();
    void acceptHost();
    void endConnection(const std::string& reason);
    // The device is gone or broken: nothing can be carried any more.
    void giveUp(const std::string& reason);

    void fromDevice();
    // True when the buffer has been written.
    bool flush();
    void fromStream();
    void toDevice(std::span<const uint8_t> frame);

    Parts parts_;
    base::StopSignal stop_;
    base::UniqueFd host_;
    const size_t max_frame_;
    base::FrameBatch to_host_;
    base::FrameReader from_host_;
    Counters counters_;
    std::thread thread_;
};

}  // namespace arca::tap_forwarder
