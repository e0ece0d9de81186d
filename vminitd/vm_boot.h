// What has to be done once, when the agent is the first process of a VM.
//
// Both kinds of root work: an initramfs, and a disk or share that the kernel has mounted read-only
// (then everything writable lies on tmpfs). Source: the guest protocol, "Boot, CLI, pods".
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace arca::vminitd {

// The agent's own cgroup, and the bytes beyond which the kernel slows it down.
inline constexpr char kAgentCgroup[] = "/sys/fs/cgroup/vminitd";
inline constexpr uint64_t kAgentMemoryHigh = uint64_t{80} << 20U;

inline constexpr char kVmStateRoot[] = "/run/container";
inline constexpr char kVmModules[] = "/lib/modules/arca";
// Of the cgroup for what the agent starts beside containers.
inline constexpr char kVmHookProcs[] = "/sys/fs/cgroup/hooks/cgroup.procs";
// Of hook services, one folder a container; from the cgroups' root.
inline constexpr char kVmServiceCgroups[] = "/service";
inline constexpr char kVmHooksDir[] = "/etc/arca/hooks.d";

// First of all, before anything is mounted or opened: makes the root one that can be left by
// pivot_root(2), which an initramfs is not, and mounts /proc, /dev, /sys, /run and cgroup2.
base::Result<> bootMounts();

// Interpreters for programs of other machines, where the kernel has them. After its modules.
void mountBinfmtMisc();

// Limits, protection from the OOM killer, the agent's own cgroup and that of hooks. What cannot be
// had is logged.
void bootLimits();

// Whether something of the file system type `magic` (statfs(2)) can only be a kernel's initial
// root, from which nothing can be pivoted.
bool isInitialRoot(unsigned long magic);

}  // namespace arca::vminitd
