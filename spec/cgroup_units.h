// Values of LinuxResources in the units of cgroup v2, for whoever sets them: the agent in files,
// the runtime in systemd's properties.
#pragma once

#include <cstdint>

namespace arca::spec {

// cpu.shares (2..262144) as cpu.weight (1..10000); 1024 gives 100.
// Source: runc 1.4, crun 1.23: ceil(10^((l^2 + 125 l) / 612 - 7/34)), l = log2(shares).
uint64_t cpuWeightFromShares(uint64_t shares);

// blockIO.weight (10..1000) as io.weight (1..10000), linearly.
uint64_t ioWeightFromBlkio(uint64_t weight);

}  // namespace arca::spec
