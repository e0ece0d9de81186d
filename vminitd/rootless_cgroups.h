// Cgroups for a user without privileges over them.
//
// A container whose configuration names no cgroup, and that needs none for its limits, runs without
// those that cannot be had. Source: runc(8) --rootless, the rules of its cgroup managers.
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/result.h"
#include "spec/spec.h"
#include "vminitd/cgroup.h"

namespace arca::vminitd {

// Whether the calling process is what `--rootless auto` calls so: not the superuser, or one in a
// user namespace of its own.
bool runsRootless();

// CgroupManager::create() and apply() of what can be had. What is refused for want of permission
// leaves `dirs`, and must not be needed for `resources`; device rules are given up with it.
base::Result<> makeRootlessCgroups(CgroupManager& cgroups, CgroupDirs& dirs,
                                   const spec::Resources& resources);

// CgroupManager::addProcess(). Directories that the process may not be put into leave `dirs`, and
// are removed if we made them.
base::Result<> addRootlessProcess(CgroupManager& cgroups, CgroupDirs& dirs, pid_t pid);

// The processes in the pid namespace of `init`, ascending: what a container without any cgroup is
// told by. Those in namespaces below it are not found.
base::Result<std::vector<pid_t>> processesBeside(pid_t init);

}  // namespace arca::vminitd
