// The agent that makes its containers' processes itself: the first process of a VM, or for tests a
// plain process of a host.
#pragma once

#include <optional>
#include <string>

#include "base/log.h"
#include "base/result.h"
#include "vminitd/vm_boot.h"

namespace arca::vminitd {

struct VmOptions {
    std::string transport = "vsock://2";  // the host's CID
    std::string state_root = kVmStateRoot;
    std::string cgroup_prefix = "/container";
    std::string vmexec = "/sbin/vmexec";
    // Of hook files; absent: kVmHooksDir for the first process of a VM, none otherwise.
    std::optional<std::string> hooks_dir;
    base::log::Level log_level = base::log::Level::kInfo;
};

// Boots (as the first process of a VM only) and serves. Returns when it cannot begin to; as a plain
// process also after SIGTERM or SIGINT.
base::Result<> runVmAgent(const VmOptions& options);

}  // namespace arca::vminitd
