// The `linux.resources` object. Source: runtime-spec config-linux.md, "Control groups".
//
// A zero that some clients write for "not set" stays a zero; whoever applies it knows which files
// take one.
#include "spec/value_rules.h"

namespace arca::spec {
namespace {

constexpr int64_t kUnlimited = -1;
constexpr int64_t kMaxDeviceNumber = UINT32_MAX;

bool isHugepageSize(std::string_view text) {
    if (text.size() < 3 || !text.ends_with('B')) return false;
    const char unit = text[text.size() - 2];
    if (unit != 'K' && unit != 'M' && unit != 'G') return false;
    const std::string_view digits = text.substr(0, text.size() - 2);
    return digits.front() != '0' &&
           digits.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

// A device number of a rule; absent, or -1 as libcontainer's own clients write it, means all.
static void getRuleNumber(const JsonObject& object, std::string_view name,
                          std::optional<int64_t>& target) {
    getBetween(object, name, target, -1, kMaxDeviceNumber);
    if (target == -1) target.reset();
}

static void decode(JsonValue value, DeviceRule& target) {
    const JsonObject object(value);
    object.require("allow", target.allow);
    std::string type;
    object.get("type", type);
    if (type.size() > 1 ||
        (!type.empty() && std::string_view("abc").find(type[0]) == std::string_view::npos)) {
        object.fail("type", shown(type) + " is no device type; a, b and c are");
    } else if (!type.empty()) {
        target.type = type.front();
    }
    getRuleNumber(object, "major", target.major);
    getRuleNumber(object, "minor", target.minor);
    object.get("access", target.access);
    if (target.access.find_first_not_of("rwm") != std::string::npos) {
        object.fail("access", shown(target.access) + " may only have the letters r, w and m");
    }
}

static void decode(JsonValue value, MemoryResources& target) {
    const JsonObject object(value);
    getAtLeast(object, "limit", target.limit, kUnlimited);
    getAtLeast(object, "reservation", target.reservation, kUnlimited);
    getAtLeast(object, "swap", target.swap, kUnlimited);
    getAtLeast(object, "kernel", target.kernel, kUnlimited);
    getAtLeast(object, "kernelTCP", target.kernelTCP, kUnlimited);
    getBetween(object, "swappiness", target.swappiness, 0, 100);
    object.get("disableOOMKiller", target.disableOOMKiller);
    object.get("useHierarchy", target.useHierarchy);
    object.get("checkBeforeUpdate", target.checkBeforeUpdate);
}

static void decode(JsonValue value, CpuResources& target) {
    const JsonObject object(value);
    object.get("shares", target.shares);
    object.get("quota", target.quota);
    object.get("burst", target.burst);
    object.get("period", target.period);
    object.get("realtimeRuntime", target.realtimeRuntime);
    object.get("realtimePeriod", target.realtimePeriod);
    object.get("cpus", target.cpus);
    object.get("mems", target.mems);
    getBetween(object, "idle", target.idle, 0, 1);
    constexpr uint64_t kShortest = 1000;    // us
    constexpr uint64_t kLongest = 1000000;  // us
    if (target.period && *target.period != 0 &&
        (*target.period < kShortest || *target.period > kLongest)) {
        object.fail("period",
                    "must be 1000..1000000 us or 0, is " + std::to_string(*target.period));
    }
    if (target.burst && target.quota && *target.quota > 0 &&
        *target.burst > static_cast<uint64_t>(*target.quota)) {
        object.fail("burst", "is above the quota of " + std::to_string(*target.quota) + " us");
    }
}

static void getWeight(const JsonObject& object, std::string_view name,
                      std::optional<uint16_t>& target) {
    if (!object.get(name, target) || !target || *target == 0) return;
    if (*target < 10 || *target > 1000) {
        object.fail(name, "must be 10..1000 or 0, is " + std::to_string(*target));
    }
}

static void getDeviceNumber(const JsonObject& object, std::string_view name, int64_t& target) {
    if (!object.find(name).exists()) object.missing(name);
    getBetween(object, name, target, 0, kMaxDeviceNumber);
}

static void decode(JsonValue value, WeightDevice& target) {
    const JsonObject object(value);
    getDeviceNumber(object, "major", target.major);
    getDeviceNumber(object, "minor", target.minor);
    getWeight(object, "weight", target.weight);
    getWeight(object, "leafWeight", target.leafWeight);
    if (!target.weight && !target.leafWeight) {
        value.fail("must have at least one of weight and leafWeight");
    }
}

static void decode(JsonValue value, ThrottleDevice& target) {
    const JsonObject object(value);
    getDeviceNumber(object, "major", target.major);
    getDeviceNumber(object, "minor", target.minor);
    object.require("rate", target.rate);
}

static void decode(JsonValue value, BlockIoResources& target) {
    const JsonObject object(value);
    getWeight(object, "weight", target.weight);
    getWeight(object, "leafWeight", target.leafWeight);
    object.get("weightDevice", target.weightDevice);
    object.get("throttleReadBpsDevice", target.throttleReadBpsDevice);
    object.get("throttleWriteBpsDevice", target.throttleWriteBpsDevice);
    object.get("throttleReadIOPSDevice", target.throttleReadIOPSDevice);
    object.get("throttleWriteIOPSDevice", target.throttleWriteIOPSDevice);
}

static void decode(JsonValue value, HugepageLimit& target) {
    const JsonObject object(value);
    std::string_view name = "pageSize";
    if (value.reader()->source() == Source::kWire && !object.find(name).exists()) name = "pagesize";
    object.require(name, target.pageSize);
    if (!isHugepageSize(target.pageSize)) {
        object.fail(name, shown(target.pageSize) + " is no page size such as 64KB, 2MB or 1GB");
    }
    object.require("limit", target.limit);
}

static void decode(JsonValue value, InterfacePriority& target) {
    const JsonObject object(value);
    object.require("name", target.name);
    if (!isInterfaceName(target.name)) {
        object.fail("name", shown(target.name) + " is no network interface name");
    }
    object.require("priority", target.priority);
}

static void decode(JsonValue value, NetworkResources& target) {
    const JsonObject object(value);
    object.get("classID", target.classID);
    object.get("priorities", target.priorities);
}

static void decode(JsonValue value, RdmaLimit& target) {
    const JsonObject object(value);
    object.get("hcaHandles", target.hcaHandles);
    object.get("hcaObjects", target.hcaObjects);
    if (!target.hcaHandles && !target.hcaObjects) {
        value.fail("must have at least one of hcaHandles and hcaObjects");
    }
}

// Each key becomes a word of one line in rdma.max.
static void checkRdmaNames(JsonValue devices) {
    if (!devices.exists() || devices.type() != JsonType::kObject) return;
    devices.forEach([](JsonValue member) {
        if (member.key().find_first_of(" \t\r\n\v\f") != std::string_view::npos) {
            member.fail("a device name must not contain white space");
        }
    });
}

// Each key becomes the name of a file in the container's cgroup directory.
static void checkUnifiedNames(JsonValue files) {
    if (!files.exists() || files.type() != JsonType::kObject) return;
    files.forEach([](JsonValue member) {
        const std::string_view name = member.key();
        if (name.starts_with('.') || name.find('/') != std::string_view::npos) {
            member.fail("must be the name of a cgroup file, without '/' and no '.' in front");
        }
    });
}

const char* Resources::aLimit() const {
    if (!unified.empty()) return "unified";
    if (!rdma.empty()) return "rdma";
    if (network) return "network";
    if (!hugepageLimits.empty()) return "hugepageLimits";
    if (blockIO) return "blockIO";
    if (pidsLimit) return "pids";
    if (cpu) return "cpu";
    if (memory) return "memory";
    return nullptr;
}

void decode(JsonValue value, Resources& target) {
    const JsonObject object(value);
    object.get("devices", target.devices);
    object.get("memory", target.memory);
    object.get("cpu", target.cpu);
    const JsonValue pids = object.find("pids");
    if (pids.exists()) getAtLeast(JsonObject(pids), "limit", target.pidsLimit, kUnlimited);
    object.get("blockIO", target.blockIO);
    object.get("hugepageLimits", target.hugepageLimits);
    object.get("network", target.network);
    checkRdmaNames(object.find("rdma"));
    object.get("rdma", target.rdma);
    checkUnifiedNames(object.find("unified"));
    object.get("unified", target.unified);
}

}  // namespace arca::spec
