// What a container uses, from its cgroup files and its network namespace.
//
// Source: the guest protocol's ContainerStatistics for the names and cgroup v2 files; kernel
// documentation cgroup-v1/ for their v1 counterparts. Loop thread; reads only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vminitd/cgroup.h"

namespace arca::vminitd {

inline constexpr uint64_t kNoLimit = UINT64_MAX;

struct ProcessStatistics {
    uint64_t current = 0, limit = kNoLimit;
};
struct MemoryStatistics {  // bytes, or counts
    uint64_t usage = 0, limit = kNoLimit, swap_usage = 0, swap_limit = kNoLimit;
    uint64_t cache = 0, kernel_stack = 0, slab = 0, page_faults = 0, major_page_faults = 0;
    uint64_t inactive_file = 0, anon = 0, workingset_refault_anon = 0, workingset_refault_file = 0;
    uint64_t pgsteal_kswapd = 0, pgsteal_direct = 0, pgsteal_khugepaged = 0;
};
struct CpuStatistics {  // microseconds, or counts
    uint64_t usage = 0, user = 0, system = 0, periods = 0, throttled_periods = 0, throttled = 0;
};
struct BlockIoEntry {
    uint64_t major = 0, minor = 0, read_bytes = 0, write_bytes = 0, reads = 0, writes = 0;
};
struct NetworkStatistics {
    std::string interface;
    uint64_t rx_packets = 0, tx_packets = 0, rx_bytes = 0, tx_bytes = 0, rx_errors = 0,
             tx_errors = 0;
};
struct MemoryEvents {
    uint64_t low = 0, high = 0, max = 0, oom = 0, oom_kill = 0, oom_group_kill = 0;
};

struct HugePageStatistics {             // of one size of pages
    std::string page_size;              // as in the files' names: "2MB"
    uint64_t usage = 0, max_usage = 0;  // bytes; the latter with cgroup v1 only
    uint64_t failures = 0;              // how often the limit was met
};
struct RdmaStatistics {
    std::string device;
    uint64_t handles = 0, objects = 0, handle_limit = kNoLimit, object_limit = kNoLimit;
};

// A group is absent when its file is.
struct ContainerStatistics {
    std::optional<ProcessStatistics> process;
    std::optional<MemoryStatistics> memory;
    std::optional<CpuStatistics> cpu;
    std::optional<std::vector<BlockIoEntry>> block_io;
    std::vector<NetworkStatistics> networks;
    std::optional<MemoryEvents> memory_events;
    std::vector<HugePageStatistics> huge_pages;
    std::vector<RdmaStatistics> rdma;
};

// Which groups are wanted.
struct StatisticsSelection {
    bool process = true, memory = true, cpu = true, block_io = true, network = true,
         memory_events = true, huge_pages = true, rdma = true;
};

// `init_pid`: whose network namespace is meant; 0: none.
ContainerStatistics readStatistics(const CgroupDirs& dirs, bool unified, pid_t init_pid,
                                   const StatisticsSelection& wanted, CgroupFs& fs);

// The counters in a text of /proc/PID/net/dev, without the loopback device.
std::vector<NetworkStatistics> parseNetDev(const std::string& text);

}  // namespace arca::vminitd
