// The program around the device: waits for a VMM, serves it, ends or waits for the next one.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vsock/device.h"
#include "vsock/event_loop.h"
#include "vsock/hybrid.h"
#include "vsock/vhost_user_session.h"

namespace arca::vsock {

struct ServerOptions {
    DeviceOptions device;
    std::string base_name;  // of the sockets in the working directory
    bool keep = false;      // wait for the next VMM
};

class Server final : private EventHandler {
 public:
    // How long the host's programs may take to read what the guest had sent when its VM ended.
    static constexpr std::chrono::milliseconds kDrainTimeout{2'000};

    Server(EventLoop& loop, const ServerOptions& options, std::vector<uid_t> users);
    ~Server() override;

    // Takes the listening socket of BASE.
    base::Result<> serveHost(base::UniqueFd listener) { return hybrid_.start(std::move(listener)); }
    // Takes a socket on which VMMs connect, or one of a VMM that has.
    base::Result<> listenForVmm(base::UniqueFd listener);
    base::Result<> serveVmm(base::UniqueFd socket);

    // Serves until the VMM is gone and nothing is left to do; with `keep`, until an error.
    base::Result<> run();

 private:
    void onEvents(uint32_t events) override;
    void onVmmGone();

    EventLoop& loop_;
    bool keep_;
    PeerPolicy peers_;
    UnixDialer dialer_;
    Device device_;
    HybridListener hybrid_;
    Watch vmm_listener_;
    std::unique_ptr<VhostUserSession> session_;
    Timer drain_;
    bool ending_ = false;
    bool drained_ = false;
};

}  // namespace arca::vsock
