// ContainerStatistics between the agent's structs and the wire.
#pragma once

#include <string>

#include "sandbox_context.pb.h"
#include "vminitd/statistics.h"

namespace arca::vminitd {

namespace wire = com::apple::containerization::sandbox::v3;

// No category named: all of them.
StatisticsSelection selectionOf(const wire::ContainerStatisticsRequest& request);

void fillStatistics(const std::string& container_id, const ContainerStatistics& from,
                    wire::ContainerStats& to);

}  // namespace arca::vminitd
