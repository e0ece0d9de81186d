// The agent as a plain process of the host: started by a command that made its sockets, gone after
// some idle seconds.
//
// Starting and leaving are serialised by flock on `lock`: a command that finds nobody takes it,
// makes the sockets and starts an agent; an agent that leaves takes it, removes the sockets, and
// serves what had connected before that.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vminitd/activity.h"
#include "vminitd/attach.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

struct DaemonOptions {
    std::string state_root;
    std::string key;
    std::chrono::seconds idle{5};
    base::UniqueFd rpc_listener;
    base::UniqueFd attach_listener;
    base::UniqueFd lock;
    base::UniqueFd folder;  // where the sockets are
};

// First thing in main: away from the caller's terminal, folder, environment and descriptors (but
// for those of `options`). stderr stays what it is: the agent's log.
base::Result<> becomeDaemon(const DaemonOptions& options);

class LocalDaemon {
 public:
    using Serve = std::function<void(base::UniqueFd)>;

    // `serve` takes accepted RPC connections.
    LocalDaemon(EventLoop& loop, DaemonOptions options, AttachServer& attach, Activity& activity,
                Serve serve);

    // Watches the sockets and SIGTERM, writes agent.json. The loop stops when it is time to go.
    base::Result<> start();

 private:
    base::Result<> writeAgentFile();
    void acceptAll(const base::UniqueFd& listener, const Serve& serve);
    void checkIdle();
    bool quiet(std::chrono::milliseconds for_at_least) const;
    void leave();

    EventLoop& loop_;
    DaemonOptions options_;
    AttachServer& attach_;
    Activity& activity_;
    Serve serve_rpc_;
    Serve serve_attach_;
    base::UniqueFd signals_;
    Watch rpc_watch_, attach_watch_, signal_watch_;
    Timer idle_timer_;
    bool leaving_ = false;   // sockets are gone; what has connected is served still
    bool asked_to_ = false;  // SIGTERM
};

}  // namespace arca::vminitd
