// attach.sock: where commands of the local sandbox bring the bodies of processes.
//
// One connection, one body. It stays open while the process is being made: hooks are asked for and
// the terminal is given over it, and its end before that means that the command died. A body for
// which no CreateProcess comes is dropped after kUnclaimedLimit. Loop thread only.
#pragma once

#include <chrono>
#include <list>
#include <map>
#include <memory>

#include "base/unique_fd.h"
#include "vminitd/body.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

class AttachConnection;

class AttachServer : public BodySource {
 public:
    static constexpr std::chrono::milliseconds kUnclaimedLimit{10'000};
    static constexpr std::chrono::milliseconds kAcquireLimit{5'000};

    explicit AttachServer(EventLoop& loop) : loop_(loop) {}
    ~AttachServer() override;

    // Takes an accepted connection whose peer has been checked.
    void serve(base::UniqueFd connection);
    void acquire(const BodyRequest& request,
                 std::function<void(base::Result<Body>)> ready) override;

    // No connection comes any more: a process without a body here will never get one (its body
    // went to the next agent), and is told so at once with kUnavailable.
    void close() { closed_ = true; }

    // Connections that have not ended yet.
    [[nodiscard]] size_t connections() const { return connections_.size(); }

 private:
    friend class AttachConnection;

    struct Claim {
        BodyKey key;
        std::function<void(base::Result<Body>)> ready;
        Timer timeout;
    };
    void offer(const BodyKey& key, const std::shared_ptr<AttachConnection>& connection, Body body);
    void drop(AttachConnection* connection);

    struct Offer {
        std::shared_ptr<AttachConnection> connection;
        Body body;
        Timer timeout;
    };

    EventLoop& loop_;
    bool closed_ = false;
    std::map<AttachConnection*, std::shared_ptr<AttachConnection>> connections_;
    std::map<BodyKey, Offer> offers_;
    std::list<Claim> claims_;
};

}  // namespace arca::vminitd
