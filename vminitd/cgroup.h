// The cgroups of containers: made, limited, filled, frozen, emptied and removed.
//
// One CgroupManager for the agent; which implementation depends on what is mounted on
// /sys/fs/cgroup: v1 hierarchies (with or without a v2 tree beside them) or v2 alone. All calls are
// short file operations for the agent's loop: nothing here waits; what may need time (freezing,
// dying) is asked for again by the caller. Source: runtime-spec config-linux.md "Control groups";
// kernel documentation, cgroup-v1/ and cgroup-v2.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"
#include "vminitd/cgroup_fs.h"

namespace arca::vminitd {

// A container's directory in one hierarchy.
struct CgroupDir {
    // As the second field of /proc/PID/cgroup has it: "memory", "cpu,cpuacct", "name=systemd"; ""
    // is v2.
    std::string controllers;
    std::string path;   // "/sys/fs/cgroup/memory/a/b"
    bool made = false;  // by us: only then it is removed with the container

    bool operator==(const CgroupDir&) const = default;
};
using CgroupDirs = std::vector<CgroupDir>;

enum class FreezeState { kThawed, kFreezing, kFrozen };

// A mounted hierarchy.
struct Hierarchy {
    std::string controllers;
    std::string mount_point;
    std::string root;  // which cgroup the mount point shows; "/" outside of containers
};

class CgroupManager {
 public:
    virtual ~CgroupManager() = default;

    [[nodiscard]] virtual bool unified() const = 0;

    // Where `cgroups_path` (absolute inside each hierarchy; "..", "//" cleaned away) lies. Touches
    // nothing; `made` is what create() would do, so that it can be recorded first.
    // kFailedPrecondition when the cgroup exists and has processes, as with two containers in one,
    // or is frozen: nothing could be started in it.
    virtual base::Result<CgroupDirs> locate(std::string_view cgroups_path) = 0;

    // The same without looking: for what a broken record leaves to be guessed.
    virtual CgroupDirs directories(std::string_view cgroups_path) = 0;

    // Makes the directories (parents too) and, on v2, enables controllers down to them.
    virtual base::Result<> create(const CgroupDirs& dirs) = 0;

    // Sets the limits of a new container; its processes come after. Absent values stay untouched,
    // except for devices: what no rule allows is denied, plus the defaults of every container.
    // kUnsupported naming the file when the kernel has none for a value that was asked for.
    virtual base::Result<> apply(const CgroupDirs& dirs, const spec::Resources& resources) = 0;

    // Changes limits. Refused values leave everything as it was. `devices` is looked at only when
    // it has entries.
    virtual base::Result<> update(const CgroupDirs& dirs, const spec::Resources& resources) = 0;

    // Lets `owner` make cgroups below `dirs` and move processes there: the directory and what the
    // kernel says may be given away with it. Nothing on v1, whose files cannot be given away
    // safely. Source: runtime-spec config-linux.md, "Cgroup ownership".
    virtual base::Result<> delegate(const CgroupDirs& dirs, uid_t owner) = 0;

    virtual base::Result<> addProcess(const CgroupDirs& dirs, pid_t pid) = 0;

    // Asks for the state; freezeState() tells when it is reached.
    virtual base::Result<> setFrozen(const CgroupDirs& dirs, bool frozen) = 0;
    virtual base::Result<FreezeState> freezeState(const CgroupDirs& dirs) = 0;

    // SIGKILL to every process below `dirs` that are ours, frozen or not. Call again until
    // remove() is done: processes may be born meanwhile.
    virtual base::Result<> killAll(const CgroupDirs& dirs) = 0;

    // Processes of the container, nested cgroups included, ascending.
    virtual base::Result<std::vector<pid_t>> processes(const CgroupDirs& dirs) = 0;

    // Removes what we made, nested ones first. False: something is still in use. Never looks at
    // directories that were there before.
    virtual base::Result<bool> remove(const CgroupDirs& dirs) = 0;

    // The cgroups that process `pid` is in now, each at or below the one in `dirs` (that one is
    // given where it is not).
    virtual base::Result<CgroupDirs> currentOf(pid_t pid, const CgroupDirs& dirs) = 0;
};

// What the files of a host say about its hierarchies: `mountinfo` as of /proc/self/mountinfo.
// Source: proc_pid_mountinfo(5).
std::vector<Hierarchy> parseHierarchies(std::string_view mountinfo);

// The manager for `hierarchies`; kFailedPrecondition when there are none.
base::Result<std::unique_ptr<CgroupManager>> makeCgroupManager(std::vector<Hierarchy> hierarchies,
                                                               CgroupFs& fs);
// The same for this host. `fs` must outlive it.
base::Result<std::unique_ptr<CgroupManager>> detectCgroups(CgroupFs& fs);

// "/" + `path` cleaned by text, so that no ".." is left. "" gives "/".
std::string cleanCgroupPath(std::string_view path);

// Moves the calling process to the root of every hierarchy, as far as the kernel lets it.
void leaveCgroups(const std::vector<Hierarchy>& hierarchies, CgroupFs& fs);

}  // namespace arca::vminitd
