// What a VM is made of: the host's settings, the container's limits, the files that came with this
// program.
#pragma once

#include <string>

#include "base/result.h"
#include "runtime/monitor/config.h"
#include "runtime/settings.h"
#include "spec/spec.h"

namespace arca::runtime {

// kNotFound names the program or file that is missing.
base::Result<MonitorConfig> makeVmConfig(const VmSettings& settings, const spec::Spec& spec,
                                         const std::string& sandbox_id);

// MiB for a guest whose container may use `limit_bytes` (0 or less: no limit).
uint32_t guestMemoryMib(int64_t limit_bytes);
// CPUs for a container with this quota and period (0: none), at most `available`.
uint32_t guestVcpus(int64_t quota, uint64_t period, uint32_t available);

}  // namespace arca::runtime
