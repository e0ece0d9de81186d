// A container as a transient scope of systemd: its name and its properties. Pure: what talks to
// systemd is bus.h.
//
// Source: systemd.resource-control(5), org.freedesktop.systemd1(5), "Transient Units"; the form of
// cgroupsPath and of annotations is runc's (docs/systemd.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::runtime::systemd {

struct ScopeName {
    std::string slice;  // "system.slice"
    std::string unit;   // "docker-ID.scope"
};

// From "slice:prefix:name". An empty slice is `default_slice`, an empty path a name of our own made
// from `id`. Fails with kInvalidArgument on another form and on what is no name of a slice.
base::Result<ScopeName> scopeName(const std::string& cgroups_path, const std::string& id,
                                  const std::string& default_slice);

struct DeviceAllow {
    std::string path;    // "/dev/char/1:3", "char-*"
    std::string access;  // of r, w, m
    bool operator==(const DeviceAllow&) const = default;
};
struct DeviceLimit {
    std::string path;  // "/dev/block/8:0"
    uint64_t value = 0;
    bool operator==(const DeviceLimit&) const = default;
};

// The D-Bus types that properties of units have: b, y, n, q, i, u, x, t, d, s, as, ay, au, a(ss),
// a(st).
using Value =
    std::variant<bool, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t, double,
                 std::string, std::vector<std::string>, std::vector<uint8_t>, std::vector<uint32_t>,
                 std::vector<DeviceAllow>, std::vector<DeviceLimit>>;
struct Property {
    std::string name;
    Value value;
    bool operator==(const Property&) const = default;
};
using Properties = std::vector<Property>;

// What of `resources` systemd has properties for, in the names of cgroup v2 or v1. The rest, and
// these too, are written to the cgroup by the agent: so that systemd does not undo them at its next
// daemon-reload both have to know. 0 and absent values give nothing.
base::Result<Properties> resourceProperties(const spec::Resources& resources, bool unified);

// DevicePolicy and DeviceAllow: what the rules allow. Rules that deny a part of it are left to the
// agent's own filter, which stands beside systemd's.
Properties deviceProperties(const std::vector<spec::DeviceRule>& rules);

// Of annotations "org.systemd.property.NAME" with values as gdbus(1) writes them: true, 'text',
// uint64 5, ['a', 'b']. NAME ending in Sec takes seconds and becomes the USec that D-Bus has.
base::Result<Properties> annotationProperties(const spec::Annotations& annotations);

// What every container's scope has, then the resources, then the annotations, which win.
base::Result<Properties> scopeProperties(const spec::Spec& spec, const std::string& id,
                                         const std::string& slice, bool unified);

// "0-2,5" as the bit mask of AllowedCPUs.
base::Result<std::vector<uint8_t>> cpuMask(std::string_view list);

}  // namespace arca::runtime::systemd
