#include "vmexec/capabilities.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/strings.h"
#include "spec/known_names.h"

namespace arca::vmexec {

using base::failErrno;
using base::Result;

namespace {

constexpr unsigned kBits = 64;

std::string nameOf(unsigned number) {
    if (number < spec::names::kCapabilities.size())
        return std::string(spec::names::kCapabilities[number]);
    return std::to_string(number);
}

// Collects the bits of one list. A name that is not known is warned about once, whatever the number
// of lists that have it.
uint64_t bitsOf(const std::vector<std::string>& names, std::vector<std::string>& warnings) {
    uint64_t bits = 0;
    for (const std::string& name : names) {
        const auto number = capabilityNumber(name);
        if (number) {
            bits |= 1ULL << *number;
            continue;
        }
        std::string text = "capability " + base::printable(name) + " is not known and is ignored";
        if (std::find(warnings.begin(), warnings.end(), text) == warnings.end())
            warnings.push_back(std::move(text));
    }
    return bits;
}

// `wanted` without what `allowed` lacks, which is warned about.
uint64_t grant(uint64_t wanted, uint64_t allowed, const char* set,
               std::vector<std::string>& warnings) {
    for (unsigned number = 0; number < kBits; ++number) {
        if ((wanted & ~allowed & (1ULL << number)) == 0) continue;
        warnings.push_back("capability " + nameOf(number) + " cannot be granted in the " + set +
                           " set and is left out");
    }
    return wanted & allowed;
}

std::array<__user_cap_data_struct, 2> packed(uint64_t effective, uint64_t permitted,
                                             uint64_t inheritable) {
    std::array<__user_cap_data_struct, 2> data{};
    for (size_t i = 0; i < data.size(); ++i) {
        const size_t shift = i * 32U;
        data[i].effective = static_cast<uint32_t>(effective >> shift);
        data[i].permitted = static_cast<uint32_t>(permitted >> shift);
        data[i].inheritable = static_cast<uint32_t>(inheritable >> shift);
    }
    return data;
}

}  // namespace

std::optional<unsigned> capabilityNumber(std::string_view name) {
    std::string upper = base::toUpper(name);
    if (!upper.starts_with("CAP_")) upper.insert(0, "CAP_");
    const auto& known = spec::names::kCapabilities;
    const auto* found = std::find(known.begin(), known.end(), upper);
    if (found == known.end()) return std::nullopt;
    return static_cast<unsigned>(found - known.begin());
}

CapabilityPlan planCapabilities(const spec::Capabilities& wanted, const CapabilitySets& current) {
    CapabilityPlan plan;
    std::vector<std::string>& warnings = plan.warnings;
    CapabilitySets& sets = plan.sets;
    const uint64_t bounding = bitsOf(wanted.bounding, warnings);
    const uint64_t permitted = bitsOf(wanted.permitted, warnings);
    const uint64_t effective = bitsOf(wanted.effective, warnings);
    const uint64_t inheritable = bitsOf(wanted.inheritable, warnings);
    const uint64_t ambient = bitsOf(wanted.ambient, warnings);
    sets.bounding = grant(bounding, current.bounding, "bounding", warnings);
    sets.permitted = grant(permitted, current.permitted, "permitted", warnings);
    sets.effective = grant(effective, sets.permitted, "effective", warnings);
    // The kernel takes into the inheritable set only what the bounding set still has.
    sets.inheritable =
        grant(inheritable, current.inheritable | sets.bounding, "inheritable", warnings);
    sets.ambient = grant(ambient, sets.permitted & sets.inheritable, "ambient", warnings);
    return plan;
}

uint64_t namedCapabilities(const spec::Capabilities& wanted) {
    uint64_t bits = 0;
    for (const auto* names : {&wanted.bounding, &wanted.effective, &wanted.permitted,
                              &wanted.inheritable, &wanted.ambient}) {
        for (const std::string& name : *names) {
            if (const auto number = capabilityNumber(name)) bits |= 1ULL << *number;
        }
    }
    return bits;
}

Result<CapabilitySets> currentCapabilities(uint64_t interesting) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> data{};
    if (::syscall(SYS_capget, &header, data.data()) != 0) return failErrno("capget");
    const auto join = [&](uint32_t __user_cap_data_struct::*member) {
        return uint64_t{data[0].*member} | uint64_t{data[1].*member} << 32U;
    };
    CapabilitySets sets;
    sets.effective = join(&__user_cap_data_struct::effective);
    sets.permitted = join(&__user_cap_data_struct::permitted);
    sets.inheritable = join(&__user_cap_data_struct::inheritable);
    for (unsigned number = 0; number < kBits; ++number) {
        // Fails for what the kernel does not know: that is in no set.
        const uint64_t bit = 1ULL << number;
        if ((interesting & bit) != 0 && ::prctl(PR_CAPBSET_READ, number, 0, 0, 0) > 0)
            sets.bounding |= bit;
    }
    return sets;
}

Result<> limitBounding(uint64_t bounding) {
    for (unsigned number = 0; number < kBits; ++number) {
        if ((bounding & (1ULL << number)) != 0) continue;
        if (::prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0) continue;
        if (errno == EINVAL) break;
        // Without CAP_SETPCAP what is already missing is no failure.
        if (::prctl(PR_CAPBSET_READ, number, 0, 0, 0) != 0)
            return failErrno("drop " + nameOf(number) + " from the bounding set", EPERM);
    }
    return {};
}

Result<> setCapabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const auto data = packed(effective, permitted, inheritable);
    if (::syscall(SYS_capset, &header, data.data()) != 0) return failErrno("set capabilities");
    return {};
}

Result<> setAmbient(uint64_t ambient) {
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL)
        return failErrno("clear ambient capabilities");
    for (unsigned number = 0; number < kBits; ++number) {
        if ((ambient & (1ULL << number)) == 0) continue;
        if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0)
            return failErrno("raise ambient " + nameOf(number));
    }
    return {};
}

}  // namespace arca::vmexec
