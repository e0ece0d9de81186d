// A container's cgroups in its records: what the agent writes of a container, and what the host
// writes of a stand-in.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "vminitd/cgroup.h"

namespace arca::vminitd {

nlohmann::json cgroupsToJson(const CgroupDirs& dirs);

// Throws what the JSON library throws for anything else than the above.
CgroupDirs cgroupsFromJson(const nlohmann::json& json);

}  // namespace arca::vminitd
