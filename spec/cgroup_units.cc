#include "spec/cgroup_units.h"

#include <algorithm>
#include <cmath>

namespace arca::spec {

uint64_t cpuWeightFromShares(uint64_t shares) {
    if (shares <= 2) return 1;
    if (shares >= 262144) return 10000;
    const double l = std::log2(static_cast<double>(shares));
    const double exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    return static_cast<uint64_t>(std::ceil(std::pow(10.0, exponent)));
}

uint64_t ioWeightFromBlkio(uint64_t weight) {
    return 1U + (std::max<uint64_t>(weight, 10U) - 10U) * 9999U / 990U;
}

}  // namespace arca::spec
