// The container's init, from the clone to the gate.
#pragma once

#include "base/unique_fd.h"
#include "spec/plan.h"
#include "vmexec/channel.h"
#include "vmexec/mount_sources.h"

namespace arca::vmexec {

struct InitInput {
    spec::Plan plan;
    Channel channel;
    base::UniqueFd gate;
    MountSources sources;
    bool in_userns = false;  // not the user namespace of the runtime
};

// Makes the container around the calling process and becomes its program. Every failure is reported
// over the channel and ends the process.
[[noreturn]] void initMain(InitInput input);

}  // namespace arca::vmexec
