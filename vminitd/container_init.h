// vminitd in containers: as their init, and as the process that holds a pod's namespaces.
//
// Both are this one program bound into a container: single-threaded, no gRPC is touched.
#pragma once

#include <string>
#include <vector>

namespace arca::vminitd {

// Runs args[0] (searched in PATH) in a process group of its own, in the foreground of the terminal
// if there is one; passes on every signal that comes, reaps whatever is orphaned. Gives the
// command's exit code, 128 + signal, 127 when there is no such program, 126 when it cannot be run.
// `whole_group`: signals go to the command's process group instead of to it alone.
int runContainerInit(const std::vector<std::string>& args, bool whole_group);

// Reaps until SIGINT or SIGTERM, then gives 0.
int runPause();

}  // namespace arca::vminitd
