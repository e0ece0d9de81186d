// The gRPC side: SandboxContext and SandboxExtension on connected sockets.
//
// Its handlers run on gRPC's threads; those about containers hand their work to the loop and are
// finished from there. The only part of the agent that knows gRPC.
#pragma once

#include <memory>

#include "base/unique_fd.h"
#include "vminitd/activity.h"
#include "vminitd/agent.h"
#include "vminitd/agent_files.h"
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
        VmPower* power = nullptr;  // of a VM that may be powered off
    };
    // Starts gRPC's threads. The parts must outlive the server.
    explicit RpcServer(const Parts& parts);
    ~RpcServer();

    // Serves a connected stream socket until its peer closes it.
    void serve(base::UniqueFd connection);

 private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace arca::vminitd
