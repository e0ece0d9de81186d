#include "vminitd/cgroup_settings.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "base/strings.h"
#include "spec/cgroup_units.h"
#include "vminitd/device_rules.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

// What v1 memory files show for "no limit" is this or a little less (rounded to pages).
constexpr int64_t kV1Unlimited = int64_t{1} << 62U;

// Groups of settings that bound each other: written in whatever order the kernel accepts.
enum Group { kNoGroup = 0, kMemoryGroup, kCfsGroup, kRtGroup };

// 0 and absent both mean "not asked for": that is how engines of all ages send it.
template <typename T>
std::optional<T> asked(const std::optional<T>& value) {
    return value && *value != T{0} ? value : std::nullopt;
}

std::string deviceKey(int64_t major, int64_t minor) {
    return std::to_string(major) + ":" + std::to_string(minor);
}

Result<> checkSwap(const spec::MemoryResources& memory, std::optional<int64_t> limit) {
    const auto swap = asked(memory.swap);
    if (!swap || *swap < 0) return {};
    if (!limit || *limit < 0) {
        return fail(Code::kInvalidArgument, "unable to set swap limit without memory limit");
    }
    if (*swap < *limit) {
        return fail(Code::kInvalidArgument,
                    "memory+swap limit must be greater than or equal to memory limit");
    }
    return {};
}

Result<> checkCpu(const spec::CpuResources& cpu) {
    const auto shares = asked(cpu.shares);
    if (shares && *shares < 2) {
        return fail(Code::kInvalidArgument, "the minimum allowed cpu-shares is 2");
    }
    if (shares && *shares > 262144) {
        return fail(Code::kInvalidArgument, "the maximum allowed cpu-shares is 262144");
    }
    if (cpu.idle && *cpu.idle != 0 && *cpu.idle != 1) {
        return fail(Code::kInvalidArgument, "linux.resources.cpu.idle: must be 0 or 1");
    }
    return {};
}

std::optional<int64_t> readNumber(CgroupFs& fs, const std::string& path) {
    const auto text = fs.read(path);
    if (!text) return std::nullopt;
    return base::parseNumber<int64_t>(base::trim(*text));
}

Result<std::string> rdmaLine(const std::string& name, const spec::RdmaLimit& limit) {
    if (name.find_first_of(" \n") != std::string::npos || name.empty()) {
        return fail(Code::kInvalidArgument, "linux.resources.rdma: bad device name");
    }
    std::string line = name;
    if (limit.hcaHandles) line += " hca_handle=" + std::to_string(*limit.hcaHandles);
    if (limit.hcaObjects) line += " hca_object=" + std::to_string(*limit.hcaObjects);
    return line;
}

Result<> checkPageSize(const std::string& size) {
    const size_t digits = std::min(size.find_first_not_of("0123456789"), size.size());
    const std::string unit = size.substr(digits);
    if (digits > 0 && (unit == "KB" || unit == "MB" || unit == "GB")) return {};
    return fail(Code::kInvalidArgument,
                "linux.resources.hugepageLimits: bad pageSize " + base::printable(size));
}

// ---- version 1 ----

class V1Builder {
 public:
    V1Builder(const CgroupDirs& dirs, Purpose purpose, CgroupFs& fs)
        : dirs_(dirs), purpose_(purpose), fs_(fs) {}

    Result<std::vector<Setting>> build(const spec::Resources& res) {
        if (res.memory) ARCA_CHECK(memory(*res.memory));
        if (res.cpu) ARCA_CHECK(cpu(*res.cpu));
        if (const auto limit = asked(res.pidsLimit)) {
            ARCA_CHECK(add("pids", "pids.max", *limit < 0 ? "max" : std::to_string(*limit)));
        }
        if (res.blockIO) ARCA_CHECK(blockIo(*res.blockIO));
        ARCA_CHECK(hugetlb(res.hugepageLimits));
        if (res.network) ARCA_CHECK(network(*res.network));
        for (const auto& [name, limit] : res.rdma) {
            ARCA_TRY(const std::string line, rdmaLine(name, limit));
            ARCA_CHECK(add("rdma", "rdma.max", line));
        }
        if (!res.unified.empty()) {
            return fail(Code::kUnsupported,
                        "linux.resources.unified: needs cgroup v2, this host has cgroup v1");
        }
        return std::move(out_);
    }

 private:
    [[nodiscard]] std::string dirOf(std::string_view controller) const {
        for (const CgroupDir& dir : dirs_) {
            for (const std::string_view one : base::split(dir.controllers, ',')) {
                if (one == controller) return dir.path;
            }
        }
        return {};
    }

    Result<> add(const char* controller, const std::string& file, std::string value,
                 Group group = kNoGroup) {
        const std::string dir = dirOf(controller);
        if (dir.empty()) {
            return fail(Code::kUnsupported, std::string("cgroup controller ") + controller +
                                                " is not mounted, but " + file + " was asked for");
        }
        out_.push_back(Setting{dir + "/" + file, std::move(value), group});
        return {};
    }

    Result<> memory(const spec::MemoryResources& memory) {
        auto limit = asked(memory.limit);
        auto swap = asked(memory.swap);
        if (purpose_ == Purpose::kUpdate && !limit && swap) {
            limit = readNumber(fs_, dirOf("memory") + "/memory.limit_in_bytes");
            if (limit && *limit >= kV1Unlimited) limit.reset();
        }
        ARCA_CHECK(checkSwap(memory, limit));
        const bool has_swap_file = fs_.exists(dirOf("memory") + "/memory.memsw.limit_in_bytes");
        // Lifting the limit alone lifts both: a total that stays would be a limit still.
        if (asked(memory.limit) && *memory.limit < 0 && !swap && has_swap_file) swap = -1;
        if (swap && *swap < 0 && !has_swap_file) swap.reset();
        if (const auto value = asked(memory.limit)) {
            ARCA_CHECK(
                add("memory", "memory.limit_in_bytes", std::to_string(*value), kMemoryGroup));
        }
        if (swap) {
            ARCA_CHECK(
                add("memory", "memory.memsw.limit_in_bytes", std::to_string(*swap), kMemoryGroup));
        }
        if (const auto value = asked(memory.reservation)) {
            ARCA_CHECK(add("memory", "memory.soft_limit_in_bytes", std::to_string(*value)));
        }
        // memory.kernel has no counterpart left: its file takes any value and does nothing with it.
        if (const auto value = asked(memory.kernelTCP)) {
            ARCA_CHECK(add("memory", "memory.kmem.tcp.limit_in_bytes", std::to_string(*value)));
        }
        if (memory.swappiness) {
            ARCA_CHECK(add("memory", "memory.swappiness", std::to_string(*memory.swappiness)));
        }
        if (memory.disableOOMKiller && (*memory.disableOOMKiller || purpose_ == Purpose::kUpdate)) {
            ARCA_CHECK(add("memory", "memory.oom_control", *memory.disableOOMKiller ? "1" : "0"));
        }
        return {};
    }

    Result<> cpu(const spec::CpuResources& cpu) {
        ARCA_CHECK(checkCpu(cpu));
        if (cpu.idle) ARCA_CHECK(add("cpu", "cpu.idle", std::to_string(*cpu.idle)));
        // An idle group has no shares of its own; the kernel refuses them.
        if (const auto shares = asked(cpu.shares); shares && cpu.idle.value_or(0) == 0) {
            ARCA_CHECK(add("cpu", "cpu.shares", std::to_string(*shares)));
        }
        if (cpu.burst) {
            ARCA_CHECK(add("cpu", "cpu.cfs_burst_us", std::to_string(*cpu.burst), kCfsGroup));
        }
        if (const auto period = asked(cpu.period)) {
            ARCA_CHECK(add("cpu", "cpu.cfs_period_us", std::to_string(*period), kCfsGroup));
        }
        if (const auto quota = asked(cpu.quota)) {
            ARCA_CHECK(add("cpu", "cpu.cfs_quota_us", std::to_string(*quota), kCfsGroup));
        }
        if (const auto period = asked(cpu.realtimePeriod)) {
            ARCA_CHECK(add("cpu", "cpu.rt_period_us", std::to_string(*period), kRtGroup));
        }
        if (const auto runtime = asked(cpu.realtimeRuntime)) {
            ARCA_CHECK(add("cpu", "cpu.rt_runtime_us", std::to_string(*runtime), kRtGroup));
        }
        if (!cpu.cpus.empty()) ARCA_CHECK(add("cpuset", "cpuset.cpus", cpu.cpus));
        if (!cpu.mems.empty()) ARCA_CHECK(add("cpuset", "cpuset.mems", cpu.mems));
        return {};
    }

    // The scheduler in use decides the name; "blkio.weight" is CFQ's, gone since Linux 5.0.
    Result<std::string> blkioFile(const std::string& name) {
        const std::string dir = dirOf("blkio");
        if (fs_.exists(dir + "/blkio." + name)) return "blkio." + name;
        if (fs_.exists(dir + "/blkio.bfq." + name)) return "blkio.bfq." + name;
        return fail(Code::kUnsupported, "the kernel has neither blkio." + name + " nor blkio.bfq." +
                                            name + ", which was asked for");
    }

    Result<> blockIo(const spec::BlockIoResources& io) {
        if (const auto weight = asked(io.weight)) {
            ARCA_TRY(const std::string file, blkioFile("weight"));
            ARCA_CHECK(add("blkio", file, std::to_string(*weight)));
        }
        if (const auto weight = asked(io.leafWeight)) {
            ARCA_TRY(const std::string file, blkioFile("leaf_weight"));
            ARCA_CHECK(add("blkio", file, std::to_string(*weight)));
        }
        for (const spec::WeightDevice& device : io.weightDevice) {
            const std::string key = deviceKey(device.major, device.minor);
            if (const auto weight = asked(device.weight)) {
                ARCA_TRY(const std::string file, blkioFile("weight_device"));
                ARCA_CHECK(add("blkio", file, key + " " + std::to_string(*weight)));
            }
            if (const auto weight = asked(device.leafWeight)) {
                ARCA_TRY(const std::string file, blkioFile("leaf_weight_device"));
                ARCA_CHECK(add("blkio", file, key + " " + std::to_string(*weight)));
            }
        }
        const std::pair<const char*, const std::vector<spec::ThrottleDevice>*> throttles[] = {
            {"blkio.throttle.read_bps_device", &io.throttleReadBpsDevice},
            {"blkio.throttle.write_bps_device", &io.throttleWriteBpsDevice},
            {"blkio.throttle.read_iops_device", &io.throttleReadIOPSDevice},
            {"blkio.throttle.write_iops_device", &io.throttleWriteIOPSDevice},
        };
        for (const auto& [file, devices] : throttles) {
            for (const spec::ThrottleDevice& device : *devices) {
                ARCA_CHECK(
                    add("blkio", file,
                        deviceKey(device.major, device.minor) + " " + std::to_string(device.rate)));
            }
        }
        return {};
    }

    Result<> hugetlb(const std::vector<spec::HugepageLimit>& limits) {
        for (const spec::HugepageLimit& limit : limits) {
            ARCA_CHECK(checkPageSize(limit.pageSize));
            const std::string prefix = "hugetlb." + limit.pageSize;
            ARCA_CHECK(add("hugetlb", prefix + ".limit_in_bytes", std::to_string(limit.limit)));
            if (fs_.exists(dirOf("hugetlb") + "/" + prefix + ".rsvd.limit_in_bytes")) {
                ARCA_CHECK(
                    add("hugetlb", prefix + ".rsvd.limit_in_bytes", std::to_string(limit.limit)));
            }
        }
        return {};
    }

    Result<> network(const spec::NetworkResources& network) {
        if (const auto id = asked(network.classID)) {
            ARCA_CHECK(add("net_cls", "net_cls.classid", std::to_string(*id)));
        }
        for (const spec::InterfacePriority& priority : network.priorities) {
            if (priority.name.empty() || priority.name.find_first_of(" \n") != std::string::npos) {
                return fail(Code::kInvalidArgument,
                            "linux.resources.network.priorities: bad interface name");
            }
            ARCA_CHECK(add("net_prio", "net_prio.ifpriomap",
                           priority.name + " " + std::to_string(priority.priority)));
        }
        return {};
    }

    const CgroupDirs& dirs_;
    Purpose purpose_;
    CgroupFs& fs_;
    std::vector<Setting> out_;
};

// ---- version 2 ----

class V2Builder {
 public:
    V2Builder(const std::string& dir, Purpose purpose, CgroupFs& fs)
        : dir_(dir), purpose_(purpose), fs_(fs) {}

    Result<std::vector<Setting>> build(const spec::Resources& res) {
        if (res.memory) ARCA_CHECK(memory(*res.memory));
        if (res.cpu) ARCA_CHECK(cpu(*res.cpu));
        if (const auto limit = asked(res.pidsLimit)) {
            add("pids.max", *limit < 0 ? "max" : std::to_string(*limit));
        }
        if (res.blockIO) ARCA_CHECK(blockIo(*res.blockIO));
        for (const spec::HugepageLimit& limit : res.hugepageLimits) {
            ARCA_CHECK(checkPageSize(limit.pageSize));
            const std::string prefix = "hugetlb." + limit.pageSize;
            add(prefix + ".max", std::to_string(limit.limit));
            if (fs_.exists(dir_ + "/" + prefix + ".rsvd.max")) {
                add(prefix + ".rsvd.max", std::to_string(limit.limit));
            }
        }
        if (res.network && (asked(res.network->classID) || !res.network->priorities.empty())) {
            return fail(Code::kUnsupported, "linux.resources.network: cgroup v2 has no such limit");
        }
        for (const auto& [name, limit] : res.rdma) {
            ARCA_TRY(std::string line, rdmaLine(name, limit));
            add("rdma.max", std::move(line));
        }
        ARCA_CHECK(unified(res.unified));
        return std::move(out_);
    }

 private:
    void add(const std::string& file, std::string value, Group group = kNoGroup) {
        out_.push_back(Setting{dir_ + "/" + file, std::move(value), group});
    }

    static Result<> missing(const char* member) {
        return fail(Code::kUnsupported,
                    std::string("linux.resources.") + member + ": does not exist in cgroup v2");
    }

    static std::string limitText(int64_t value) {
        return value < 0 ? std::string("max") : std::to_string(value);
    }

    Result<> memory(const spec::MemoryResources& memory) {
        if (memory.swappiness) return missing("memory.swappiness");
        if (memory.disableOOMKiller.value_or(false)) return missing("memory.disableOOMKiller");
        const auto limit = asked(memory.limit);
        const auto swap = asked(memory.swap);
        auto effective = limit;
        if (purpose_ == Purpose::kUpdate && !limit && swap) {
            effective = readNumber(fs_, dir_ + "/memory.max");  // "max" is no number
        }
        ARCA_CHECK(checkSwap(memory, effective));
        if (memory.checkBeforeUpdate.value_or(false) && limit && *limit > 0) {
            const auto current = readNumber(fs_, dir_ + "/memory.current");
            if (current && *current > *limit) {
                return fail(Code::kInvalidArgument,
                            "rejecting memory limit " + std::to_string(*limit) +
                                ": below the current usage of " + std::to_string(*current));
            }
        }
        // Swap first: where both fall, the total never grows in between.
        if (swap) {
            // The file counts swap alone; the specification counts memory plus swap.
            add("memory.swap.max", *swap < 0 ? "max" : std::to_string(*swap - *effective));
        } else if (limit && *limit < 0 && fs_.exists(dir_ + "/memory.swap.max")) {
            add("memory.swap.max", "max");
        }
        if (limit) add("memory.max", limitText(*limit));
        if (const auto value = asked(memory.reservation)) add("memory.low", limitText(*value));
        return {};
    }

    Result<> cpu(const spec::CpuResources& cpu) {
        ARCA_CHECK(checkCpu(cpu));
        if (asked(cpu.realtimeRuntime) || asked(cpu.realtimePeriod)) {
            return fail(Code::kUnsupported,
                        "linux.resources.cpu: realtime limits do not exist in cgroup v2");
        }
        if (cpu.idle) add("cpu.idle", std::to_string(*cpu.idle));
        if (const auto shares = asked(cpu.shares); shares && cpu.idle.value_or(0) == 0) {
            add("cpu.weight", std::to_string(spec::cpuWeightFromShares(*shares)));
        }
        if (cpu.burst) add("cpu.max.burst", std::to_string(*cpu.burst), kCfsGroup);
        const auto quota = asked(cpu.quota);
        const auto period = asked(cpu.period);
        if (quota || period) {
            std::string value = "max";
            if (quota && *quota > 0) value = std::to_string(*quota);
            if (!quota) {
                // Only the period changes: the quota that is there stays.
                const auto now = fs_.read(dir_ + "/cpu.max");
                if (now) value = std::string(base::split(*now, ' ').front());
            }
            if (period) value += " " + std::to_string(*period);
            add("cpu.max", value, kCfsGroup);
        }
        if (!cpu.cpus.empty()) add("cpuset.cpus", cpu.cpus);
        if (!cpu.mems.empty()) add("cpuset.mems", cpu.mems);
        return {};
    }

    Result<> blockIo(const spec::BlockIoResources& io) {
        const bool bfq = fs_.exists(dir_ + "/io.bfq.weight");
        if (const auto weight = asked(io.weight)) {
            if (bfq) {
                add("io.bfq.weight", std::to_string(*weight));
            } else {
                add("io.weight", std::to_string(spec::ioWeightFromBlkio(*weight)));
            }
        }
        if (asked(io.leafWeight)) {
            return missing("blockIO.leafWeight");
        }
        for (const spec::WeightDevice& device : io.weightDevice) {
            if (const auto weight = asked(device.weight)) {
                add("io.bfq.weight",
                    deviceKey(device.major, device.minor) + " " + std::to_string(*weight));
            }
            if (asked(device.leafWeight)) {
                return missing("blockIO.weightDevice.leafWeight");
            }
        }
        const std::pair<const char*, const std::vector<spec::ThrottleDevice>*> throttles[] = {
            {"rbps", &io.throttleReadBpsDevice},
            {"wbps", &io.throttleWriteBpsDevice},
            {"riops", &io.throttleReadIOPSDevice},
            {"wiops", &io.throttleWriteIOPSDevice},
        };
        for (const auto& [name, devices] : throttles) {
            for (const spec::ThrottleDevice& device : *devices) {
                add("io.max", deviceKey(device.major, device.minor) + " " + name + "=" +
                                  (device.rate == 0 ? "max" : std::to_string(device.rate)));
            }
        }
        return {};
    }

    Result<> unified(const std::map<std::string, std::string>& files) {
        for (const auto& [file, value] : files) {
            if (file.empty() || file.find('/') != std::string::npos || file == "." ||
                file == "..") {
                return fail(Code::kInvalidArgument, "linux.resources.unified: \"" +
                                                        base::printable(file) +
                                                        "\" must be a file name (no slashes)");
            }
            for (const std::string_view line : base::split(value, '\n')) {
                if (!base::trim(line).empty()) add(file, std::string(base::trim(line)));
            }
        }
        return {};
    }

    const std::string& dir_;
    Purpose purpose_;
    CgroupFs& fs_;
    std::vector<Setting> out_;
};

// ---- applying ----

// The command that brings `setting`'s file back to what `old` (its content) says.
std::string restoreCommand(const Setting& setting, const std::string& old) {
    const std::string file = setting.path.substr(setting.path.rfind('/') + 1);
    if (file == "memory.oom_control") {
        return old.find("oom_kill_disable 1") != std::string::npos ? "1" : "0";
    }
    // A file of lines by key (device, interface): the key's own line, or what removes it.
    const size_t space = setting.value.find(' ');
    const std::string key = space == std::string::npos ? "" : setting.value.substr(0, space);
    const bool keyed =
        key.find(':') != std::string::npos || file == "net_prio.ifpriomap" || file == "rdma.max";
    if (!keyed) {
        const auto lines = base::split(old, '\n');
        // "default 100" is how the weight files of v2 begin.
        const std::string_view first = lines.empty() ? std::string_view() : lines.front();
        return std::string(first);
    }
    for (const std::string_view line : base::split(old, '\n')) {
        if (line.substr(0, key.size() + 1) == key + " ") return std::string(line);
    }
    if (file == "io.max") return key + " rbps=max wbps=max riops=max wiops=max";
    if (file == "rdma.max") return key + " hca_handle=max hca_object=max";
    if (file.rfind("io.", 0) == 0) return key + " default";
    return key + " 0";
}

Result<> writeSetting(const Setting& setting, CgroupFs& fs) {
    auto written = fs.write(setting.path, setting.value);
    if (!written && written.error().sysErrno() == ENOENT && !fs.exists(setting.path)) {
        return fail(Code::kUnsupported,
                    "the kernel has no " + setting.path + ", which was asked for", ENOENT);
    }
    return written;
}

// Writes all, where the members of a group may have to wait for each other. `done` gets the
// indices in the order in which they succeeded.
Result<> writeAllSettings(const std::vector<Setting>& settings, CgroupFs& fs,
                          std::vector<size_t>& done) {
    std::vector<size_t> left(settings.size());
    for (size_t i = 0; i < left.size(); ++i) left[i] = i;
    while (!left.empty()) {
        std::vector<size_t> again;
        std::optional<base::Error> first_error;
        for (const size_t i : left) {
            auto written = writeSetting(settings[i], fs);
            if (written) {
                done.push_back(i);
                continue;
            }
            if (settings[i].group == kNoGroup) return written;
            if (!first_error) first_error = std::move(written).error();
            again.push_back(i);
        }
        if (again.size() == left.size()) return fail(std::move(*first_error));
        left = std::move(again);
    }
    return {};
}

}  // namespace

Result<std::vector<Setting>> v1Settings(const CgroupDirs& dirs, const spec::Resources& res,
                                        Purpose purpose, CgroupFs& fs) {
    return V1Builder(dirs, purpose, fs).build(res);
}

Result<std::vector<Setting>> v2Settings(const std::string& dir, const spec::Resources& res,
                                        Purpose purpose, CgroupFs& fs) {
    return V2Builder(dir, purpose, fs).build(res);
}

Result<> applySettings(const std::vector<Setting>& settings, Purpose purpose, CgroupFs& fs) {
    std::vector<std::string> old(settings.size());
    if (purpose == Purpose::kUpdate) {
        for (size_t i = 0; i < settings.size(); ++i) {
            // Unreadable: then there is nothing to bring back; the write tells what is wrong.
            if (auto text = fs.read(settings[i].path)) old[i] = std::move(*text);
        }
    }
    std::vector<size_t> done;
    auto result = writeAllSettings(settings, fs, done);
    if (result || purpose == Purpose::kCreate) return result;
    std::vector<Setting> restore;
    for (auto it = done.rbegin(); it != done.rend(); ++it) {
        const Setting& setting = settings[*it];
        if (old[*it].empty() && setting.value.find(':') == std::string::npos) continue;
        restore.push_back(Setting{setting.path, restoreCommand(setting, old[*it]), setting.group});
    }
    std::vector<size_t> restored;
    auto undone = writeAllSettings(restore, fs, restored);
    if (!undone) {
        return fail(std::move(result).error().withContext("could not undo all changes (" +
                                                          undone.error().message() + ")"));
    }
    return result;
}

}  // namespace arca::vminitd
