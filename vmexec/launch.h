// The last part, the same for a container's init and for an exec: becomes the user, waits at the
// gate, executes the program. Runs in the container's namespaces and root.
#pragma once

#include <optional>

#include "base/unique_fd.h"
#include "spec/plan.h"
#include "vmexec/channel.h"
#include "vmexec/console.h"
#include "vmexec/proc_fs.h"

namespace arca::vmexec {

struct LaunchInput {
    spec::Plan plan;
    Channel channel;
    base::UniqueFd gate;
    base::UniqueFd signals;
    base::UniqueFd root;         // O_PATH of the container's root
    std::optional<ProcFs> proc;  // the runtime's, when something is still to be written there
    std::optional<Console> console;
};

// True when launch() will write labels, for which `proc` is needed.
bool needsProcForLabels(const spec::Spec& spec);

// Applies spec.process, reports kReady, waits for kCommit and then at the gate, and executes the
// program. Any failure is reported over the channel (or the gate's connection) and ends the
// process.
[[noreturn]] void launch(LaunchInput input);

}  // namespace arca::vmexec
