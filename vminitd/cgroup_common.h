// What both cgroup versions do alike: directory trees, and processes in them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vminitd/cgroup.h"

namespace arca::vminitd {

// Deepest nesting that is looked at below a container's cgroup.
inline constexpr int kMaxCgroupDepth = 64;

// Every pid in cgroup.procs of `path` and all directories below it, appended to `pids`. A missing
// directory has none.
base::Result<> collectProcesses(const std::string& path, CgroupFs& fs, std::vector<pid_t>& pids,
                                int depth = 0);

// rmdir of `path` after all below it. False: still in use.
base::Result<bool> removeCgroupTree(const std::string& path, CgroupFs& fs, int depth = 0);

// Makes `mount_point`/a/b/c for "/a/b/c"; `made_level(dir)` is called for each directory that is
// passed or made, from the mount point down to the parent of the last one and the last one.
base::Result<> makeCgroupTree(
    const std::string& mount_point, const std::string& path, CgroupFs& fs,
    const std::function<base::Result<>(const std::string& dir, bool is_leaf)>& level);

// The value of /proc/PID/cgroup for the hierarchy `controllers`.
std::optional<std::string> cgroupOfProcess(const std::string& proc_cgroup,
                                           const std::string& controllers);

// `directory` of `hierarchy` for the path that /proc/PID/cgroup shows.
std::string directoryFor(const Hierarchy& hierarchy, const std::string& path_in_hierarchy);

// The cgroup that exists at `path`, and those below it, must be without processes.
base::Result<> checkUnused(const std::string& path, CgroupFs& fs);

// One that exists and is frozen by `file` ("cgroup.freeze", "freezer.state") takes no new process.
base::Result<> checkNotFrozen(const std::string& path, const char* file, CgroupFs& fs);

// Whether processes in `dir` are the container's to kill: the directories that we made hold all of
// them; only where everything was there before (and empty, see checkUnused()) do those count.
bool emptiedByUs(const CgroupDirs& dirs, const CgroupDir& dir);

// currentOf() of both managers.
base::Result<CgroupDirs> currentDirs(pid_t pid, const CgroupDirs& dirs,
                                     const std::vector<Hierarchy>& hierarchies, CgroupFs& fs);

base::Result<std::unique_ptr<CgroupManager>> makeV1Manager(std::vector<Hierarchy> hierarchies,
                                                           CgroupFs& fs);
base::Result<std::unique_ptr<CgroupManager>> makeV2Manager(Hierarchy hierarchy, CgroupFs& fs);

}  // namespace arca::vminitd
