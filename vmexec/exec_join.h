// An additional process in a running container: joins what the container's init is in.
#pragma once

#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/plan.h"
#include "vmexec/channel.h"
#include "vmexec/proc_fs.h"

namespace arca::vmexec {

struct JoinedContainer {
    base::UniqueFd root;  // the container's root directory
    bool entered_userns = false;
    std::optional<ProcFs> proc;  // the runtime's, when labels are to be written
};

// Joins all namespaces of plan.init_pid that differ from the caller's, and its root directory. The
// pid namespace takes effect for the next clone.
base::Result<JoinedContainer> joinContainer(const spec::Plan& plan);

struct ExecInput {
    spec::Plan plan;
    Channel channel;
    base::UniqueFd gate;
    JoinedContainer container;
};

// The cloned process: becomes the program inside the joined container.
[[noreturn]] void execMain(ExecInput input);

}  // namespace arca::vmexec
