// The plan: all that vmexec needs to make one process, as vminitd decided it. It travels as JSON in
// a sealed memfd: {"kind": ..., "spec": <writeSpec()>, ...}. vminitd writes it, vmexec reads it;
// nobody else.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::spec {

enum class PlanKind {
    kInit,  // makes the container: namespaces, mounts, the lot
    kExec,  // joins the namespaces of a running container's init
};

struct Plan {
    PlanKind kind = PlanKind::kInit;
    std::string container_id;
    std::string bundle;  // for the state JSON of createContainer/startContainer hooks
    // ociAlterations done: user resolved, HOME/TERM/PATH added, paths absolute, cgroupsPath set.
    // For kExec only `process`, `root`, `linux.seccomp`/`mountLabel` and `annotations` matter.
    Spec spec;
    bool no_pivot = false;
    bool no_new_keyring = false;
    int preserve_fds = 0;         // descriptors 3..3+N-1 reach the program
    bool wait_for_hooks = false;  // send kMounted and wait for kHooksRan
    // kExec: pid of the container's init as the agent sees it, and its start time (vmexec checks it
    // after opening).
    int init_pid = 0;
    uint64_t init_start_time_ticks = 0;
    // Seccomp filter as the kernel takes it (array of struct sock_filter), compiled by vminitd;
    // empty: none.
    std::string seccomp_program;  // raw bytes; base64 in JSON
    uint32_t seccomp_flags = 0;   // SECCOMP_FILTER_FLAG_*
    bool seccomp_notify = false;  // a listener is to be sent to spec.linux.seccomp->listenerPath
    // cgroup directory of each hierarchy as seen by the agent ("/sys/fs/cgroup/memory/a/b", or the
    // one v2 path); for cgroup mounts.
    std::vector<std::string> cgroup_paths;
    bool unified_cgroup = false;  // v2 only host
};

std::string writePlan(const Plan& plan);
base::Result<Plan> parsePlan(std::string_view json);

}  // namespace arca::spec
