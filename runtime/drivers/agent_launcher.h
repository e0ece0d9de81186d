// Finds the local sandbox's agent, or starts it. Layout and why: ARCHITECTURE.md, "The local
// sandbox".
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

// Names the agent that sees the same paths and pids as we do: a short hexadecimal hash of our
// mount, pid, user and cgroup namespaces and of our root directory.
base::Result<std::string> agentKey();

// A stream connection to the agent's gRPC socket. An agent is started when there is none; it is
// usable at once, because the sockets are made here and queue what comes before it listens.
// `root_fd`: the state root. kUnavailable when the agent cannot be started or does not take
// connections.
base::Result<base::UniqueFd> connectAgent(int root_fd, const std::string& key);

// A SOCK_SEQPACKET connection to the agent's attach socket. Only after connectAgent().
base::Result<base::UniqueFd> connectAttach(int root_fd, const std::string& key);

}  // namespace arca::runtime
