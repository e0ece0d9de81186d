// What the agent knows of a container, on disk before it is acted on: <state root>/<id>/guest/.
//
//   config.json         the configuration after ociAlterations
//   init.json           the init: cgroups, then pid and start time
//   gate.sock           where the created init waits for start
//   execs/<name>.json   one more process each; its gate is execs/<name>.sock
//
// Whether a created process was started is not written down: its gate tells (refused or gone: the
// program has been executed), so that there is no moment in which the two differ. Loop thread only.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/process.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/state.h"
#include "vminitd/cgroup.h"
#include "vminitd/resctrl.h"

namespace arca::vminitd {

// One process as recorded.
struct ProcessRecord {
    std::string id;
    bool created = false;  // false: was being made when this was written
    base::ProcessIdentity identity;
    bool terminal = false;
    std::optional<int> exit_code;  // only when someone waited for it
    int64_t exited_at_ns = 0;      // since the epoch
};

struct ContainerRecord {
    ProcessRecord init;
    CgroupDirs cgroups;
    CgroupDirs service_cgroups;  // of its hook services; empty: it has none
    std::string bundle;
    // Its init is pid 1 of a namespace of its own: the kernel ends everything with it.
    bool own_pid_namespace = false;
    ResctrlGroup resctrl;
};

std::string writeContainerRecord(const ContainerRecord& record);
std::string writeProcessRecord(const ProcessRecord& record);
// Fail with kInternal on anything but what the functions above write.
base::Result<ContainerRecord> parseContainerRecord(const std::string& text);
base::Result<ProcessRecord> parseProcessRecord(const std::string& text);

// The message that goes with the descriptor of a seccomp listener: a ContainerProcessState.
std::string seccompListenerMessage(const spec::State& state, pid_t pid,
                                   const std::string& metadata);

// The stem of an exec's files: the id itself, or for long ones a part and a hash, so that names
// (and socket paths) stay short.
std::string execFileStem(const std::string& id);

inline constexpr char kGuestFolder[] = "guest";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kInitFile[] = "init.json";
inline constexpr char kGateSocket[] = "gate.sock";
inline constexpr char kExecsFolder[] = "execs";

// Tells whether a record file is still the one that was read: another agent of the same state root
// may have replaced it.
struct FileStamp {
    ino_t inode = 0;
    int64_t modified_ns = 0;
    bool operator==(const FileStamp&) const = default;
};
std::optional<FileStamp> stampOf(int dir_fd, const char* name);

}  // namespace arca::vminitd
