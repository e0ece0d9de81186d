// Drives one body from its plan to its gate: the agent's half of proto/body_protocol.h.
//
// A state machine on the agent's loop; nothing waits. Whatever goes wrong before kCommit (a
// failure told by vmexec, its end, the end of the command that brought it) ends with the body dead
// and `done` called with the reason; the caller then removes what it made.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "base/process.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/plan.h"
#include "vminitd/body.h"
#include "vminitd/cgroup.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

struct MadeProcess {
    base::ProcessIdentity identity;
    base::UniqueFd pidfd;
};

struct SetupRequest {
    Body body;
    std::string plan;     // writePlan()
    base::UniqueFd gate;  // listening socket
    bool run_hooks = false;
    // Puts the process into its cgroups, before it runs.
    std::function<base::Result<>(pid_t)> join;
    // Records the process, before it is told to stay.
    std::function<base::Result<>(const base::ProcessIdentity&)> record;
    std::function<void(base::Result<MadeProcess>)> done;
};

// Starts the conversation. Owns itself until `done` was called (always from the loop, maybe before
// this returns).
void setUpProcess(EventLoop& loop, SetupRequest request);

}  // namespace arca::vminitd
