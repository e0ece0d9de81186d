// The host's end of a guest's questions to a name server that an engine has put into the
// container's network namespace on this host.
//
// Made by a thread that is in that namespace, as are all its own. The guest is hostile: what it
// sends goes to that server and nowhere else, and there are limits on how much at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "base/crew.h"
#include "base/result.h"
#include "base/stop_signal.h"
#include "base/transport.h"
#include "base/unique_fd.h"

namespace arca::runtime {

// Docker's, in the network namespace of each container on a user-defined network.
inline constexpr char kEngineNameServer[] = "127.0.0.11";

// Whether somebody listens on UDP port 53 of the loopback address in the calling thread's network
// namespace, asked by a message that is no question.
bool nameServerListens(const std::string& address);

class NameServer {
 public:
    // Listens on `port` for the guest's forwarder. `transport` must outlive it.
    static base::Result<std::unique_ptr<NameServer>> start(base::Transport& transport,
                                                           uint32_t port,
                                                           const std::string& address);
    ~NameServer();  // ends everything at once
    NameServer(const NameServer&) = delete;
    NameServer& operator=(const NameServer&) = delete;

 private:
    NameServer(std::unique_ptr<base::Listener> listener, std::string address);
    void run();
    base::Result<> serve(base::UniqueFd guest);

    const std::unique_ptr<base::Listener> listener_;
    const std::string address_;
    base::StopSignal stop_;
    base::Crew crew_;
    std::thread thread_;
};

}  // namespace arca::runtime
