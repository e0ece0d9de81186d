// The network of one container of a guest: what an engine plugs into its stand-in's network
// namespace, the guest gets.
//
// A thread of its own lives in that namespace. For each Ethernet interface there it asks the
// guest's forwarder (proto/tap_forwarder.proto) for a device of the same name, MAC address, MTU,
// addresses and routes, and moves the frames between the two; the first one gets the machine's own
// network card, where it has one. The host's kernel no longer answers
// for the interface, whose settings stay where engines look for them. Interfaces that come later
// are attached when they are up, those that go are detached.
#pragma once

#include <google/protobuf/message_lite.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/stop_signal.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "network/snapshot.h"
#include "runtime/monitor/frame_relay.h"
#include "runtime/monitor/name_server.h"
#include "runtime/monitor/network_card.h"
#include "runtime/monitor/packet_socket.h"

namespace arca::runtime {

class GuestNetwork {
 public:
    struct Surroundings {
        base::EventLoop& loop;
        base::Transport& transport;            // to the guest
        std::chrono::milliseconds call_limit;  // of one call of the forwarder
        NetworkCard* card = nullptr;           // of the machine; null: it has none
    };
    // `name_space`: the network namespace.
    static base::Result<std::unique_ptr<GuestNetwork>> start(Surroundings around,
                                                             base::UniqueFd name_space);
    // Ends everything at once; the guest's devices go when the forwarder sees that, or with it.
    ~GuestNetwork();
    GuestNetwork(const GuestNetwork&) = delete;
    GuestNetwork& operator=(const GuestNetwork&) = delete;

    // Attaches what is plugged in by now. `then` is called on the loop: how many are attached, or
    // what went wrong with the first that could not be.
    void attach(std::function<void(base::Result<size_t>)> then);

 private:
    using Answer = std::function<void(base::Result<size_t>)>;
    struct Link {
        network::Interface interface;
        NetworkCard::Joint card;  // or all that follows
        PacketSocket packets;
        uint32_t port;  // of the frames, in the guest
        bool vnet_header;
        std::atomic<bool> ended{false};  // the relay has; from its thread
        unsigned reconnections = 0;
        std::unique_ptr<FrameRelay> relay;
    };

    GuestNetwork(Surroundings around, base::UniqueFd name_space, base::UniqueFd wake);
    // With the mutex held, once the thread has ended.
    void refuse(Answer answer);
    // ---- of the thread ----
    void live();
    base::Result<> liveInNamespace();
    void answerRequests();
    base::Result<size_t> attachAll();
    base::Result<> attachOne(const network::Interface& interface);
    // Where the guest has given the device its card, or has not.
    base::Result<> join(Link& link, bool by_card);
    base::Result<> connectLink(Link& link);
    void detachInGuest(const std::string& device);
    // The engine's own name server answers in the guest too.
    void serveNames();
    uint32_t nextPort();
    // Relays that have ended by themselves, and interfaces that are no more.
    void reconnectEnded();
    void detachGone(const std::vector<network::Interface>& now);
    base::Result<base::UniqueFd> dial(uint32_t port);
    base::Result<> callForwarder(const char* path, const google::protobuf::MessageLite& request,
                                 google::protobuf::MessageLite& response);

    Surroundings around_;
    const base::UniqueFd namespace_;
    const base::UniqueFd wake_;  // eventfd: there is something to do
    base::StopSignal stop_;
    std::mutex mutex_;
    std::vector<Answer> requests_;      // guarded by mutex_
    std::optional<base::Error> ended_;  // guarded by mutex_: why there are no answers any more
    // ---- of the thread ----
    std::map<unsigned, std::unique_ptr<Link>> links_;  // by the interface's index
    base::UniqueFd claim_;                             // no other guest has this namespace
    std::unique_ptr<NameServer> names_;
    uint32_t next_port_;
    std::thread thread_;
};

}  // namespace arca::runtime
