// process.scheduler, ioPriority and execCPUAffinity, linux.memoryPolicy.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vmexec {

// The bits of a list such as "0-3,7", 64 to a word. Fails with kInvalidArgument on anything that is
// no such list or names a number above 65535.
base::Result<std::vector<uint64_t>> parseBitList(std::string_view text);

base::Result<> applyScheduler(const spec::Scheduler& scheduler);
base::Result<> applyIoPriority(const spec::IoPriority& priority);
base::Result<> applyMemoryPolicy(const spec::MemoryPolicy& policy);

// Restricts the calling process to the CPUs of `list`; "" changes nothing.
base::Result<> applyCpuAffinity(std::string_view list);

}  // namespace arca::vmexec
