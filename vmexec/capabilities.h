// process.capabilities: names, what of them can be granted, and the system calls.
//
// Source: capabilities(7); runtime-spec config.md, "Linux Process": what cannot be mapped or
// granted is a warning.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vmexec {

// One bit a capability.
struct CapabilitySets {
    uint64_t bounding = 0;
    uint64_t effective = 0;
    uint64_t permitted = 0;
    uint64_t inheritable = 0;
    uint64_t ambient = 0;
    bool operator==(const CapabilitySets&) const = default;
};

// "CAP_KILL", "cap_kill" or "KILL" as a bit number; nullopt when it is not known.
std::optional<unsigned> capabilityNumber(std::string_view name);

struct CapabilityPlan {
    CapabilitySets sets;
    std::vector<std::string> warnings;  // one for each value that cannot be granted
};

// What `wanted` comes to for a process that has `current` now. Never more than `wanted`: an
// effective capability has to be permitted too, an ambient one permitted and inheritable, a
// permitted one permitted now, an inheritable or bounding one in the bounding set now. Pure.
CapabilityPlan planCapabilities(const spec::Capabilities& wanted, const CapabilitySets& current);

// The calling process's sets, but for the ambient one; of the bounding set only the bits of
// `interesting` are looked at (each costs a system call).
base::Result<CapabilitySets> currentCapabilities(uint64_t interesting);

// All bits that the lists of `wanted` name.
uint64_t namedCapabilities(const spec::Capabilities& wanted);

// Takes everything out of the bounding set that `bounding` lacks.
base::Result<> limitBounding(uint64_t bounding);

// Sets effective, permitted and inheritable.
base::Result<> setCapabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable);

// Replaces the ambient set. Its members must be permitted and inheritable.
base::Result<> setAmbient(uint64_t ambient);

// Bit of CAP_SYS_ADMIN.
inline constexpr uint64_t kCapSysAdmin = 1ULL << 21U;

}  // namespace arca::vmexec
