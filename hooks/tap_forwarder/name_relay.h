// A name server in the container's network namespace that only passes questions on to the host.
//
// For a server that an engine has put into the namespace of its own side, such as Docker's on
// 127.0.0.11: the guest asks it at the same address. Questions come by UDP and TCP; each datagram
// and each TCP connection has its own stream to the host (base/dns_stream.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "base/crew.h"
#include "base/data_channel.h"
#include "base/result.h"
#include "base/stop_signal.h"
#include "base/transport.h"
#include "base/unique_fd.h"

namespace arca::tap_forwarder {

class NameRelay {
 public:
    // Listens on port 53 of the IPv4 `address`, one of the loopback's (kInvalidArgument), in the
    // calling thread's network namespace. `port`: where the host listens. `transport` must outlive
    // the relay.
    static base::Result<std::unique_ptr<NameRelay>> start(base::Transport& transport,
                                                          const std::string& address,
                                                          uint32_t port);
    ~NameRelay();  // ends everything at once
    NameRelay(const NameRelay&) = delete;
    NameRelay& operator=(const NameRelay&) = delete;

 private:
    NameRelay(base::Transport& transport, uint32_t port);
    void run();
    void takeDatagram();
    void takeConnection();
    base::Result<> passOn(const std::string& question, const std::string& from);
    base::Result<> passOn(base::UniqueFd client);
    base::Result<base::DataChannel> dialHost(char how);

    base::Transport& transport_;
    const uint32_t port_;
    base::UniqueFd datagrams_;
    base::UniqueFd connections_;
    base::StopSignal stop_;
    base::Crew crew_;
    std::thread thread_;
};

}  // namespace arca::tap_forwarder
