// The device rules of a configuration, folded into one list that both cgroup versions can hold.
//
// The specification gives rules in order, later ones winning; the kernel's v1 files and our BPF
// program have one default and exceptions to it. Source: config-linux.md, "Allowed Device list";
// the defaults are runc's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vminitd {

struct DeviceException {
    char type = 'c';               // b or c
    std::optional<int64_t> major;  // absent: every one
    std::optional<int64_t> minor;
    std::string access;  // of "rwm", in that order
    bool operator==(const DeviceException&) const = default;
};

// All is allowed but the exceptions, or all is denied but the exceptions.
struct DevicePolicy {
    bool allow_by_default = false;
    std::vector<DeviceException> exceptions;
    bool operator==(const DevicePolicy&) const = default;
};

// Folds `rules`, from "everything denied", and then what every container may use: mknod of any
// node, null, zero, full, random, urandom, tty, ptmx, pts/*, tun. Fails with kInvalidArgument on a
// rule that punches a hole into a wildcard exception, which neither kernel interface can express.
base::Result<DevicePolicy> foldDeviceRules(const std::vector<spec::DeviceRule>& rules);

// "c 1:3 rwm", "b *:* m": the line of devices.allow.
std::string deviceLine(const DeviceException& exception);

}  // namespace arca::vminitd
