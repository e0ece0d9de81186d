// The gRPC side: SandboxContext and SandboxExtension on connected sockets.
//
// Its handlers run on gRPC's threads and wait for nothing there: those about containers hand their
// work to the loop, those that may block to worker threads, and are finished from there. The rpc_*
// files are the only part of the agent that knows gRPC.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/transport.h"
#include "base/unique_fd.h"
#include "vminitd/activity.h"
#include "vminitd/agent.h"
#include "vminitd/driver_need.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

class VmPower;

class RpcServer {
 public:
    struct Parts {
        EventLoop& loop;
        Agent& agent;
        Environment& environment;
        Activity& activity;
        VmPower* power = nullptr;  // null: there is no VM to switch off
        // How the host's ports are reached. Null in the local sandbox: then what needs one is
        // refused.
        base::Transport* host = nullptr;
        // The agent is the first process of a VM. False: what would change the machine (mounts,
        // network, sysctls, time, signals to any process) is refused, as it would be somebody's.
        bool owns_machine = false;
        // Returns once those drivers of the machine are loaded. Worker threads.
        std::function<void(const DriverNeed&)> wait_for_drivers{};
        // Holds <id>/rootfs of each container (vminitd/guest_path.h).
        std::string containers = "/run/container";
    };
    // Starts gRPC's threads. The parts must outlive the server.
    explicit RpcServer(const Parts& parts);
    // shutDown(), unless that was called.
    ~RpcServer();
    // Ends every call and every proxy. Not on the loop's thread, and while the loop runs: held
    // calls end there.
    void shutDown();

    // Serves a connected stream socket until its peer closes it.
    void serve(base::UniqueFd connection);

 private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace arca::vminitd
