#include "vminitd/cgroup_record.h"

#include <nlohmann/json.hpp>

namespace arca::vminitd {

nlohmann::json cgroupsToJson(const CgroupDirs& dirs) {
    auto json = nlohmann::json::array();
    for (const CgroupDir& dir : dirs) {
        json.push_back({{"controllers", dir.controllers}, {"path", dir.path}, {"made", dir.made}});
    }
    return json;
}

CgroupDirs cgroupsFromJson(const nlohmann::json& json) {
    CgroupDirs dirs;
    for (const nlohmann::json& dir : json) {
        dirs.push_back({dir.at("controllers").get<std::string>(), dir.at("path").get<std::string>(),
                        dir.at("made").get<bool>()});
    }
    return dirs;
}

}  // namespace arca::vminitd
