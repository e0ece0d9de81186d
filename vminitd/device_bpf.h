// The device policy as a program of BPF_PROG_TYPE_CGROUP_DEVICE, for cgroup v2.
//
// Source: kernel Documentation/admin-guide/cgroup-v2.rst "Device controller",
// include/uapi/linux/bpf.h (struct bpf_cgroup_dev_ctx).
#pragma once

#include <linux/bpf.h>

#include <string>
#include <vector>

#include "base/result.h"
#include "vminitd/device_rules.h"

namespace arca::vminitd {

// Pure. The program answers 1 (allowed) or 0.
std::vector<bpf_insn> assembleDeviceProgram(const DevicePolicy& policy);

// Loads the program and attaches it to the cgroup directory, in place of one that is attached
// there already.
base::Result<> attachDevicePolicy(const std::string& cgroup_dir, const DevicePolicy& policy);

}  // namespace arca::vminitd
