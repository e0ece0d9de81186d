#include "runtime/systemd/scope.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/strings.h"
#include "runtime/systemd/variant_text.h"
#include "spec/cgroup_units.h"

namespace arca::runtime::systemd {
namespace {

using base::Code;
using base::fail;
using base::Result;

constexpr std::string_view kSliceSuffix = ".slice";
constexpr std::string_view kAnnotationPrefix = "org.systemd.property.";
constexpr uint64_t kInfinity = std::numeric_limits<uint64_t>::max();
constexpr uint64_t kUsPerSecond = 1'000'000;

Result<> checkSlice(const std::string& slice) {
    const std::string_view text = slice;
    const bool named = text.size() > kSliceSuffix.size() && text.ends_with(kSliceSuffix);
    const std::string_view name = named ? text.substr(0, text.size() - kSliceSuffix.size()) : text;
    // "-.slice" is the root; else dashes separate levels, of which none is empty.
    const bool levels = name == "-" || (!name.starts_with('-') && !name.ends_with('-') &&
                                        name.find("--") == std::string_view::npos);
    if (named && levels && name.find('/') == std::string_view::npos) return {};
    return fail(Code::kInvalidArgument, "invalid slice name: " + base::printable(slice));
}

template <typename T>
std::optional<T> asked(const std::optional<T>& value) {
    return value && *value != T{0} ? value : std::nullopt;
}

uint64_t limitOf(int64_t value) {
    return value < 0 ? kInfinity : static_cast<uint64_t>(value);
}

std::string blockPath(int64_t major, int64_t minor) {
    return "/dev/block/" + std::to_string(major) + ":" + std::to_string(minor);
}

class ResourceBuilder {
 public:
    explicit ResourceBuilder(bool unified) : unified_(unified) {}

    Result<Properties> build(const spec::Resources& res) {
        if (res.memory) memory(*res.memory);
        if (res.cpu) ARCA_CHECK(cpu(*res.cpu));
        if (const auto limit = asked(res.pidsLimit)) put("TasksMax", limitOf(*limit));
        if (res.blockIO) blockIo(*res.blockIO);
        if (unified_) {
            for (const auto& [file, value] : res.unified) ARCA_CHECK(unified(file, value));
        }
        return std::move(out_);
    }

 private:
    // A later one of the same name takes the place of the earlier.
    void put(std::string name, Value value) {
        std::erase_if(out_, [&](const Property& known) { return known.name == name; });
        out_.push_back(Property{std::move(name), std::move(value)});
    }

    void memory(const spec::MemoryResources& memory) {
        const auto limit = asked(memory.limit);
        if (limit) put(unified_ ? "MemoryMax" : "MemoryLimit", limitOf(*limit));
        if (!unified_) return;
        if (const auto low = asked(memory.reservation)) put("MemoryLow", limitOf(*low));
        const auto swap = asked(memory.swap);
        if (swap && *swap < 0) put("MemorySwapMax", kInfinity);
        // The property counts swap alone; the specification counts memory plus swap.
        if (swap && limit && *limit > 0 && *swap >= *limit) {
            put("MemorySwapMax", static_cast<uint64_t>(*swap - *limit));
        }
    }

    Result<> cpu(const spec::CpuResources& cpu) {
        const bool idle = cpu.idle.value_or(0) == 1;
        if (const auto shares = asked(cpu.shares); shares && !unified_) put("CPUShares", *shares);
        if (unified_ && idle) put("CPUWeight", uint64_t{0});
        quota(asked(cpu.quota), asked(cpu.period));
        if (!unified_) return {};
        if (const auto shares = asked(cpu.shares); shares && !idle) {
            put("CPUWeight", spec::cpuWeightFromShares(*shares));
        }
        if (!cpu.cpus.empty()) ARCA_CHECK(mask("AllowedCPUs", cpu.cpus));
        if (!cpu.mems.empty()) ARCA_CHECK(mask("AllowedMemoryNodes", cpu.mems));
        return {};
    }

    void quota(const std::optional<int64_t>& quota, const std::optional<uint64_t>& period) {
        constexpr uint64_t kDefaultPeriodUs = 100'000;
        constexpr uint64_t kStepUs = 10'000;  // systemd rounds down to it, and down to 0 is none
        if (!quota && !period) return;
        const uint64_t period_us = period.value_or(kDefaultPeriodUs);
        uint64_t per_second = kInfinity;
        if (quota && *quota > 0) {
            const auto wanted = static_cast<uint64_t>(*quota);
            // Neither factor of a valid value comes near the square root of 2^64.
            per_second =
                wanted > kInfinity / kUsPerSecond ? kInfinity : wanted * kUsPerSecond / period_us;
            if (per_second % kStepUs != 0) per_second = (per_second / kStepUs + 1) * kStepUs;
        }
        put("CPUQuotaPerSecUSec", per_second);
        if (unified_) put("CPUQuotaPeriodUSec", period_us);
    }

    Result<> mask(const char* name, std::string_view list) {
        auto bits = cpuMask(list);
        if (!bits) return fail(std::move(bits).error());
        put(name, std::move(*bits));
        return {};
    }

    void blockIo(const spec::BlockIoResources& io) {
        if (const auto weight = asked(io.weight)) {
            if (unified_) put("IOWeight", spec::ioWeightFromBlkio(*weight));
            if (!unified_) put("BlockIOWeight", uint64_t{*weight});
        }
        if (!unified_) return;
        std::vector<DeviceLimit> weights;
        for (const spec::WeightDevice& device : io.weightDevice) {
            const auto weight = asked(device.weight);
            if (weight) weights.push_back({blockPath(device.major, device.minor), *weight});
        }
        if (!weights.empty()) put("IODeviceWeight", std::move(weights));
        const std::pair<const char*, const std::vector<spec::ThrottleDevice>*> throttles[] = {
            {"IOReadBandwidthMax", &io.throttleReadBpsDevice},
            {"IOWriteBandwidthMax", &io.throttleWriteBpsDevice},
            {"IOReadIOPSMax", &io.throttleReadIOPSDevice},
            {"IOWriteIOPSMax", &io.throttleWriteIOPSDevice},
        };
        for (const auto& [name, devices] : throttles) {
            std::vector<DeviceLimit> limits;
            for (const spec::ThrottleDevice& device : *devices) {
                limits.push_back({blockPath(device.major, device.minor),
                                  device.rate == 0 ? kInfinity : device.rate});
            }
            if (!limits.empty()) put(name, std::move(limits));
        }
    }

    // Files of `unified` that are properties too. The value is the kernel's to judge.
    Result<> unified(const std::string& file, const std::string& value) {
        static constexpr std::pair<std::string_view, const char*> kNumbers[] = {
            {"memory.min", "MemoryMin"},   {"memory.low", "MemoryLow"},
            {"memory.high", "MemoryHigh"}, {"memory.max", "MemoryMax"},
            {"pids.max", "TasksMax"},      {"memory.swap.max", "MemorySwapMax"},
            {"cpu.weight", "CPUWeight"}};
        const std::string_view text = base::trim(value);
        for (const auto& [name, property] : kNumbers) {
            if (name != file) continue;
            const auto number = base::parseNumber<uint64_t>(text);
            if (number) put(property, *number);
            if (text == "max") put(property, kInfinity);
        }
        if (file == "cpuset.cpus" && !text.empty()) return mask("AllowedCPUs", text);
        if (file == "cpuset.mems" && !text.empty()) return mask("AllowedMemoryNodes", text);
        if (file != "cpu.max") return {};
        const auto words = base::split(text, ' ');
        const auto period =
            words.size() > 1 ? base::parseNumber<uint64_t>(words[1]) : std::optional<uint64_t>();
        const auto limit = base::parseNumber<int64_t>(words.front());
        if (limit || words.front() == "max") quota(limit.value_or(-1), asked(period));
        return {};
    }

    bool unified_;
    Properties out_;
};

// "TimeoutStopSec" with a number of seconds is "TimeoutStopUSec" with an uint64.
Result<Property> inMicroseconds(Property property) {
    constexpr std::string_view kSeconds = "Sec";
    constexpr std::string_view kMicroseconds = "USec";
    std::string& name = property.name;
    if (!name.ends_with(kSeconds) || name.ends_with(kMicroseconds)) return property;
    const std::optional<double> seconds = std::visit(
        [](const auto& value) -> std::optional<double> {
            using T = std::decay_t<decltype(value)>;
            if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
                return static_cast<double>(value);
            } else {
                return std::nullopt;
            }
        },
        property.value);
    constexpr double kMostSeconds = 1e12;
    if (!seconds || !(*seconds >= 0) || *seconds > kMostSeconds) {
        return fail(Code::kInvalidArgument, "not a number of seconds");
    }
    name.replace(name.size() - kSeconds.size(), kSeconds.size(), kMicroseconds);
    property.value = static_cast<uint64_t>(*seconds * static_cast<double>(kUsPerSecond));
    return property;
}

bool isPropertyName(std::string_view name) {
    constexpr size_t kShortest = 3;
    return name.size() >= kShortest && std::all_of(name.begin(), name.end(), [](char letter) {
               return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
           });
}

std::string devicePath(const spec::DeviceRule& rule, char type) {
    const std::string kind = type == 'c' ? "char" : "block";
    if (!rule.major || *rule.major < 0) return kind + "-*";
    const std::string minor = rule.minor && *rule.minor >= 0 ? std::to_string(*rule.minor) : "*";
    return "/dev/" + kind + "/" + std::to_string(*rule.major) + ":" + minor;
}

}  // namespace

Result<ScopeName> scopeName(const std::string& cgroups_path, const std::string& id,
                            const std::string& default_slice) {
    if (cgroups_path.empty()) return ScopeName{default_slice, "arca-runtime-" + id + ".scope"};
    const auto parts = base::split(cgroups_path, ':');
    if (parts.size() != 3 || cgroups_path.front() == '/' || parts[2].empty()) {
        return fail(Code::kInvalidArgument,
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd "
                    "cgroups, got \"" +
                        base::printable(cgroups_path) + "\" instead");
    }
    ScopeName name;
    name.slice = parts[0].empty() ? default_slice : std::string(parts[0]);
    ARCA_CHECK(checkSlice(name.slice));
    if (parts[2].ends_with(kSliceSuffix)) {
        return fail(Code::kUnsupported, "cgroupsPath \"" + base::printable(cgroups_path) +
                                            "\": a container cannot be a slice of its own");
    }
    name.unit =
        std::string(parts[1]) + (parts[1].empty() ? "" : "-") + std::string(parts[2]) + ".scope";
    return name;
}

Result<std::vector<uint8_t>> cpuMask(std::string_view list) {
    constexpr unsigned kMostCpus = 65536;
    constexpr unsigned kBits = 8;
    std::vector<uint8_t> mask;
    for (const std::string_view part : base::split(base::trim(list), ',')) {
        if (part.empty()) continue;
        const size_t dash = part.find('-');
        const auto first = base::parseNumber<unsigned>(base::trim(part.substr(0, dash)));
        const auto last = dash == std::string_view::npos
                              ? first
                              : base::parseNumber<unsigned>(base::trim(part.substr(dash + 1)));
        if (!first || !last || *first > *last || *last >= kMostCpus) {
            return fail(Code::kInvalidArgument,
                        "\"" + base::printable(list) + "\" is no list such as 0-2,4");
        }
        if (mask.size() <= *last / kBits) mask.resize(*last / kBits + 1);
        for (unsigned i = *first; i <= *last; ++i) {
            mask[i / kBits] = static_cast<uint8_t>(mask[i / kBits] | (1U << (i % kBits)));
        }
    }
    return mask;
}

Result<Properties> resourceProperties(const spec::Resources& resources, bool unified) {
    return ResourceBuilder(unified).build(resources);
}

Properties deviceProperties(const std::vector<spec::DeviceRule>& rules) {
    bool all = false;
    // What every container may open. Source: runc libcontainer/specconv, AllowedDevices.
    std::vector<DeviceAllow> allowed = {
        {"char-*", "m"},          {"block-*", "m"},           {"/dev/char/1:3", "rwm"},
        {"/dev/char/1:5", "rwm"}, {"/dev/char/1:7", "rwm"},   {"/dev/char/1:8", "rwm"},
        {"/dev/char/1:9", "rwm"}, {"/dev/char/5:0", "rwm"},   {"/dev/char/5:2", "rwm"},
        {"char-pts", "rwm"},      {"/dev/char/10:200", "rwm"}};
    const size_t defaults = allowed.size();
    for (const spec::DeviceRule& rule : rules) {
        if (rule.type == 'a') {
            all = rule.allow;
            allowed.resize(defaults);
        } else if (rule.allow) {
            allowed.push_back({devicePath(rule, rule.type),
                               rule.access.empty() ? std::string("rwm") : rule.access});
        }
    }
    if (all) return {{"DevicePolicy", std::string("auto")}};
    return {{"DevicePolicy", std::string("strict")}, {"DeviceAllow", std::move(allowed)}};
}

Result<Properties> annotationProperties(const spec::Annotations& annotations) {
    Properties out;
    for (const auto& [key, text] : annotations) {
        if (!std::string_view(key).starts_with(kAnnotationPrefix)) continue;
        Property property;
        property.name = key.substr(kAnnotationPrefix.size());
        const std::string where = "annotation " + base::printable(key);
        if (!isPropertyName(property.name)) {
            return fail(Code::kInvalidArgument, where + ": not the name of a property");
        }
        auto value = parseVariantText(text);
        if (!value) return fail(std::move(value).error().withContext(where));
        property.value = std::move(*value);
        auto done = inMicroseconds(std::move(property));
        if (!done) return fail(std::move(done).error().withContext(where));
        out.push_back(std::move(*done));
    }
    return out;
}

Result<Properties> scopeProperties(const spec::Spec& spec, const std::string& id,
                                   const std::string& slice, bool unified) {
    Properties out{{"Description", "arca-runtime container " + id},
                   {"Slice", slice},
                   // The container, or the agent for it, makes cgroups below the scope's.
                   {"Delegate", true},
                   {"DefaultDependencies", false},
                   {"MemoryAccounting", true},
                   {"CPUAccounting", true},
                   {"TasksAccounting", true},
                   {unified ? "IOAccounting" : "BlockIOAccounting", true}};
    const spec::Resources none;
    const spec::Resources& resources = spec.linux.resources ? *spec.linux.resources : none;
    ARCA_TRY(Properties limits, resourceProperties(resources, unified));
    ARCA_TRY(Properties annotated, annotationProperties(spec.annotations));
    for (Properties more :
         {std::move(limits), deviceProperties(resources.devices), std::move(annotated)}) {
        for (Property& property : more) {
            std::erase_if(out, [&](const Property& p) { return p.name == property.name; });
            out.push_back(std::move(property));
        }
    }
    return out;
}

}  // namespace arca::runtime::systemd
