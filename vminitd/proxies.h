// ProxyVsock and StopVsockProxy: Unix sockets that reach across between host and guest.
//
//   into    a socket of the host appears in the guest: the agent listens at a path and dials the
//           host for each connection
//   out of  a socket of the guest is reached from the host: the agent listens on a port and
//           connects to the path for each connection
//
// Lives on the loop. What could wait (the path's file system, dialling) is done by worker threads;
// the bytes are moved by two pumps for each connection, each direction closing by itself.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/transport.h"
#include "vminitd/guest_path.h"
#include "vminitd/workers.h"

namespace arca::vminitd {

struct ProxyRequest {
    enum class Direction { kInto, kOutOf };
    std::string id;
    Direction direction = Direction::kInto;
    uint32_t port = 0;
    GuestPath path;
    std::optional<uint32_t> permissions;  // of the socket that `into` makes; absent: 0777
};

// Kept by shared_ptr: work in flight and connections hold it. Loop thread only.
class Proxies : public std::enable_shared_from_this<Proxies> {
 public:
    static constexpr size_t kMaxProxies = 256;
    // Of all proxies together; more of them wait in the listeners' queues.
    static constexpr size_t kMaxConnections = 1024;

    using Done = std::function<void(base::Result<>)>;

    // `host` and `workers` must be there until closeAll().
    Proxies(base::EventLoop& loop, base::Transport& host, Workers& workers);
    ~Proxies();

    // `done` once it listens. kAlreadyExists for an id that is in use, before anything is touched;
    // kFailedPrecondition when there are kMaxProxies. A stale socket at the path of `into` is
    // replaced; anything else there is an error.
    void start(ProxyRequest request, Done done);
    // Takes no more connections and removes the socket; those that there are run on. kNotFound for
    // an unknown id.
    void stop(const std::string& id, Done done);
    // Stops them all, without a word to anybody; connections run on.
    void closeAll();

 private:
    struct Proxy;
    using ProxyPtr = std::shared_ptr<Proxy>;
    class Relay;

    void listening(const ProxyPtr& proxy, base::Result<> opened, const Done& done);
    void watch(const ProxyPtr& proxy);
    void acceptOne(const ProxyPtr& proxy);
    void join(base::UniqueFd accepted, base::UniqueFd dialled);
    void connectionEnded();
    static void close(Proxy& proxy);

    base::EventLoop& loop_;
    base::Transport& host_;
    Workers& workers_;
    std::map<std::string, ProxyPtr> proxies_;
    size_t connections_ = 0;
    bool closed_ = false;
};

}  // namespace arca::vminitd
