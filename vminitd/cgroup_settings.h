// spec::Resources as the writes that it takes: the pure half of the cgroup code.
//
// What depends on the present state (the order of memory and swap, swap on v2) is read through
// `CgroupFs`. No function here changes anything.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"
#include "vminitd/cgroup.h"

namespace arca::vminitd {

struct Setting {
    std::string path;   // absolute
    std::string value;  // one write(2)
    // Settings of one group (not 0) bound each other, as period and quota do: they are written in
    // whatever order the kernel accepts.
    int group = 0;
};

enum class Purpose { kCreate, kUpdate };

// Fail with kInvalidArgument on values that contradict each other, with kUnsupported on what this
// version of cgroups, or a missing controller, cannot do.
base::Result<std::vector<Setting>> v1Settings(const CgroupDirs& dirs, const spec::Resources& res,
                                              Purpose purpose, CgroupFs& fs);
base::Result<std::vector<Setting>> v2Settings(const std::string& dir, const spec::Resources& res,
                                              Purpose purpose, CgroupFs& fs);

// Writes `settings` in order. When one fails, those before it get their old values back (in
// `kUpdate`; a new container's cgroup is thrown away anyhow).
base::Result<> applySettings(const std::vector<Setting>& settings, Purpose purpose, CgroupFs& fs);

}  // namespace arca::vminitd
