// Statistics of the agent in the shape that `events` prints: runc's.
#pragma once

#include <string>

namespace com::apple::containerization::sandbox::v3 {
class ContainerStats;
}

namespace arca::runtime {

// The value of "data" as one line of JSON. CPU times become nanoseconds; what the agent does not
// count is left out or zero, as runc does.
std::string statisticsJson(const com::apple::containerization::sandbox::v3::ContainerStats& stats);

}  // namespace arca::runtime
