// linux.intelRdt: classes of service and monitoring groups of the kernel's resctrl file system.
//
// Source: runtime-spec config-linux.md, "IntelRdt"; kernel documentation filesystems/resctrl. Loop
// thread only.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "spec/spec.h"
#include "vminitd/cgroup_fs.h"

namespace arca::vminitd {

// What a container has there, for its record.
struct ResctrlGroup {
    std::string path;     // of its class of service; empty: it has none
    bool made = false;    // was made for it, and may be removed
    bool named = false;   // by closID: others may share it
    std::string monitor;  // its monitoring group; empty: none

    bool operator==(const ResctrlGroup&) const = default;
};

class Resctrl {
 public:
    // `root`: where it is mounted; empty: looked up in /proc/self/mountinfo when it is needed.
    explicit Resctrl(CgroupFs& fs, std::string root = {}) : fs_(fs), root_(std::move(root)) {}

    // Where a container's group is, and whether it is to be made. Changes nothing. kUnsupported
    // when no resctrl is mounted, or this machine cannot monitor what is asked for; kNotFound when
    // closID names a class that is not there and nothing says how to make it; kAlreadyExists when
    // the class that a container without closID would get, or its monitoring group, is there;
    // kInvalidArgument when an existing class has another schema, or is none.
    base::Result<ResctrlGroup> locate(const spec::IntelRdt& rdt, const std::string& container_id);
    // What a container whose record is lost can have there; nothing when no resctrl is mounted.
    ResctrlGroup leftBehind(const spec::IntelRdt& rdt, const std::string& container_id) const;
    // Makes what locate() found missing. What it has made by an error is removed again.
    base::Result<> create(const ResctrlGroup& group, const spec::IntelRdt& rdt);
    base::Result<> addProcess(const ResctrlGroup& group, pid_t pid);
    // The container was deleted: its monitoring group goes, and its class unless closID named it. A
    // container that could not be made (`undo`) takes a named class along when nobody is in it.
    // kInternal while the kernel holds one of them: can be repeated.
    base::Result<> remove(const ResctrlGroup& group, bool undo);

 private:
    base::Result<std::string> findRoot() const;
    base::Result<> checkMonitoring(const std::string& root, const spec::IntelRdt& rdt);
    base::Result<> compare(const std::string& path, const spec::IntelRdt& rdt);
    base::Result<> removeGroup(const std::string& path);
    base::Result<> writeSchemata(const std::string& path, const spec::IntelRdt& rdt);

    CgroupFs& fs_;
    std::string root_;
};

}  // namespace arca::vminitd
