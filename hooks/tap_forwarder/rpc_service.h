// The gRPC side of the forwarder: arca.tapforwarder.v1.TAPForwarder on connected sockets.
#pragma once

#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "hooks/tap_forwarder/forwarder.h"

namespace arca::tap_forwarder {

class RpcService {
 public:
    // Starts gRPC's threads, on which the calls are served. `forwarder` must outlive the service.
    RpcService(Forwarder& forwarder, const std::string& dns_socket);
    // Ends every call and connection.
    ~RpcService();
    RpcService(const RpcService&) = delete;
    RpcService& operator=(const RpcService&) = delete;

    // Serves a connected stream socket until its peer closes it.
    void serve(base::UniqueFd connection);

 private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace arca::tap_forwarder
