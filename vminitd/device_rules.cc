#include "vminitd/device_rules.h"

#include <algorithm>

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

constexpr char kAllAccess[] = "rwm";

// The letters of `text` that are access letters, once each and in the order "rwm".
std::string normalAccess(const std::string& text) {
    if (text.empty()) return kAllAccess;
    std::string out;
    for (const char letter : std::string(kAllAccess)) {
        if (text.find(letter) != std::string::npos) out += letter;
    }
    return out;
}

std::string without(const std::string& access, const std::string& removed) {
    std::string out;
    for (const char letter : access) {
        if (removed.find(letter) == std::string::npos) out += letter;
    }
    return out;
}

bool covers(const std::optional<int64_t>& outer, const std::optional<int64_t>& inner) {
    return !outer || outer == inner;
}

bool overlaps(const std::optional<int64_t>& a, const std::optional<int64_t>& b) {
    return !a || !b || *a == *b;
}

Result<> addException(DevicePolicy& policy, const DeviceException& added) {
    for (DeviceException& known : policy.exceptions) {
        if (known.type == added.type && known.major == added.major && known.minor == added.minor) {
            known.access = normalAccess(known.access + added.access);
            return {};
        }
    }
    policy.exceptions.push_back(added);
    return {};
}

// Takes `removed` out of the exceptions, since the default covers it again.
Result<> removeException(DevicePolicy& policy, const DeviceException& removed) {
    for (DeviceException& known : policy.exceptions) {
        if (known.type != removed.type || !overlaps(known.major, removed.major) ||
            !overlaps(known.minor, removed.minor)) {
            continue;
        }
        const std::string left = without(known.access, removed.access);
        if (left == known.access) continue;
        if (!covers(removed.major, known.major) || !covers(removed.minor, known.minor)) {
            return fail(Code::kInvalidArgument,
                        "linux.resources.devices: rule " + deviceLine(removed) +
                            " takes a part out of the earlier rule " + deviceLine(known) +
                            ", which the devices cgroup cannot express");
        }
        known.access = left;
    }
    std::erase_if(policy.exceptions, [](const DeviceException& e) { return e.access.empty(); });
    return {};
}

Result<> applyRule(DevicePolicy& policy, const spec::DeviceRule& rule) {
    if (rule.type == 'a') {
        // The kernel, and runc, take "a" as all devices whatever else the rule says.
        policy.allow_by_default = rule.allow;
        policy.exceptions.clear();
        return {};
    }
    // A negative number stands for "every one" in what engines send.
    const auto number = [](const std::optional<int64_t>& value) {
        return value && *value < 0 ? std::optional<int64_t>() : value;
    };
    const DeviceException exception{rule.type, number(rule.major), number(rule.minor),
                                    normalAccess(rule.access)};
    if (exception.access.empty()) return {};
    if (rule.allow == policy.allow_by_default) return removeException(policy, exception);
    return addException(policy, exception);
}

// Source: runc libcontainer/specconv, AllowedDevices.
const std::vector<spec::DeviceRule>& defaultRules() {
    static const std::vector<spec::DeviceRule> rules = {
        {true, 'c', std::nullopt, std::nullopt, "m"},
        {true, 'b', std::nullopt, std::nullopt, "m"},
        {true, 'c', 1, 3, kAllAccess},               // null
        {true, 'c', 1, 8, kAllAccess},               // random
        {true, 'c', 1, 7, kAllAccess},               // full
        {true, 'c', 5, 0, kAllAccess},               // tty
        {true, 'c', 1, 5, kAllAccess},               // zero
        {true, 'c', 1, 9, kAllAccess},               // urandom
        {true, 'c', 136, std::nullopt, kAllAccess},  // pts
        {true, 'c', 5, 2, kAllAccess},               // ptmx
        {true, 'c', 10, 200, kAllAccess},            // net/tun
    };
    return rules;
}

}  // namespace

Result<DevicePolicy> foldDeviceRules(const std::vector<spec::DeviceRule>& rules) {
    DevicePolicy policy;
    for (const spec::DeviceRule& rule : rules) ARCA_CHECK(applyRule(policy, rule));
    for (const spec::DeviceRule& rule : defaultRules()) ARCA_CHECK(applyRule(policy, rule));
    return policy;
}

std::string deviceLine(const DeviceException& exception) {
    const auto number = [](const std::optional<int64_t>& value) {
        return value ? std::to_string(*value) : std::string("*");
    };
    return std::string(1, exception.type) + " " + number(exception.major) + ":" +
           number(exception.minor) + " " + exception.access;
}

}  // namespace arca::vminitd
