// Device nodes of the configuration, the default ones, and the links in /dev. Init's side, before
// pivot_root.
//
// Source: runtime-spec config-linux.md, "Devices" and "Default Devices"; runtime-linux.md, "Dev
// symbolic links".
#pragma once

#include "base/result.h"
#include "spec/plan.h"
#include "vmexec/channel.h"

namespace arca::vmexec {

struct DeviceContext {
    const spec::Spec& spec;
    int root_fd;
    const Channel& channel;  // for warnings
    bool dev_is_bind;        // /dev is somebody else's: only the links are made in it
};

// Makes linux.devices, the default devices, /dev/ptmx and the links. A node that is there already
// and is the same device stays as it is; a different file in the place of a configured device is an
// error. Where mknod(2) is not allowed (user namespaces) the host's node of that name is bound.
base::Result<> makeDevices(const DeviceContext& context);

// A descriptor (O_PATH) of the runtime's /dev/null, checked to be device 1:3.
base::Result<base::UniqueFd> openRealDevNull();

}  // namespace arca::vmexec
