// One VMM connection: carries out vhost-user messages on the device.
//
// Negotiates only what a vsock device needs: VERSION_1 and event indices towards the driver; MQ
// (for the number of queues), REPLY_ACK and CONFIG (the guest's CID) towards the VMM. Any message
// that is malformed, out of place or cannot be carried out ends the connection; nothing of the
// VMM's is kept then.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vsock/device.h"
#include "vsock/event_loop.h"
#include "vsock/vhost_user_channel.h"

namespace arca::vsock {

class VhostUserSession final : public EventHandler {
 public:
    // `ended` is called once when the connection is over, with the device detached; it may destroy
    // the session.
    VhostUserSession(EventLoop& loop, Device& device, std::function<void()> ended);
    ~VhostUserSession() override;

    // Takes the connected socket.
    base::Result<> start(base::UniqueFd socket);

    void onEvents(uint32_t events) override;

 private:
    void end(const base::Error& why);
    base::Result<> onMessage(VhostUserMessage& message);
    // Carries out a message that has no reply of its own.
    base::Result<> carryOut(VhostUserMessage& message);
    base::Result<> setFeatures(const VhostUserMessage& message);
    base::Result<> setMemoryTable(VhostUserMessage& message);
    base::Result<> setQueueAddresses(const VhostUserMessage& message);
    base::Result<> setQueueDescriptor(VhostUserMessage& message);
    base::Result<> replyQueueBase(const VhostUserMessage& message);
    base::Result<> replyConfig(const VhostUserMessage& message);
    base::Result<> replyNumber(const VhostUserMessage& message, uint64_t number);

    Device& device_;
    std::function<void()> ended_;
    Watch socket_;
    VhostUserChannel channel_;
    uint64_t features_ = 0;
    uint64_t protocol_features_ = 0;
};

}  // namespace arca::vsock
