#include "vminitd/statistics.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "base/strings.h"

namespace arca::vminitd {

using base::split;

namespace {

constexpr uint64_t kV1NoLimit = uint64_t{1} << 62U;  // v1 shows "none" as nearly 2^63
constexpr uint64_t kNsPerUs = 1000;

uint64_t number(std::string_view text) {
    const std::string_view trimmed = base::trim(text);
    if (trimmed == "max") return kNoLimit;
    return base::parseNumber<uint64_t>(trimmed).value_or(0);
}

// The words of a line, however many blanks are between them.
std::vector<std::string_view> words(std::string_view line) {
    std::vector<std::string_view> out = split(line, ' ');
    std::erase_if(out, [](std::string_view word) { return word.empty(); });
    return out;
}

class Reader {
 public:
    Reader(const CgroupDirs& dirs, bool unified, CgroupFs& fs)
        : dirs_(dirs), unified_(unified), fs_(fs) {}

    std::optional<std::string> text(const char* controller, const char* file) {
        const std::string dir = dirOf(controller);
        if (dir.empty()) return std::nullopt;
        auto read = fs_.read(dir + "/" + file);
        if (!read) return std::nullopt;
        return std::move(*read);
    }
    std::optional<uint64_t> value(const char* controller, const char* file) {
        const auto content = text(controller, file);
        if (!content) return std::nullopt;
        return number(*content);
    }
    // A v1 limit, with its "none" as kNoLimit.
    uint64_t v1Limit(const char* controller, const char* file) {
        const uint64_t limit = value(controller, file).value_or(0);
        return limit >= kV1NoLimit ? kNoLimit : limit;
    }
    // "key value" lines.
    std::optional<std::map<std::string, uint64_t, std::less<>>> table(const char* controller,
                                                                      const char* file) {
        const auto content = text(controller, file);
        if (!content) return std::nullopt;
        std::map<std::string, uint64_t, std::less<>> out;
        for (const std::string_view line : split(*content, '\n')) {
            const auto fields = words(line);
            if (fields.size() == 2) out[std::string(fields[0])] = number(fields[1]);
        }
        return out;
    }

 private:
    std::string dirOf(std::string_view controller) const {
        for (const CgroupDir& dir : dirs_) {
            if (unified_) return dir.path;
            const auto names = split(dir.controllers, ',');
            if (std::find(names.begin(), names.end(), controller) != names.end()) return dir.path;
        }
        return {};
    }

    const CgroupDirs& dirs_;
    bool unified_;
    CgroupFs& fs_;
};

using Table = std::map<std::string, uint64_t, std::less<>>;

uint64_t get(const Table& table, std::string_view key) {
    const auto found = table.find(key);
    return found == table.end() ? 0 : found->second;
}

std::optional<ProcessStatistics> processes(Reader& files) {
    const auto current = files.value("pids", "pids.current");
    if (!current) return std::nullopt;
    return ProcessStatistics{*current, files.value("pids", "pids.max").value_or(0)};
}

void workingSet(const Table& stat, MemoryStatistics& out) {
    out.workingset_refault_anon = get(stat, "workingset_refault_anon");
    out.workingset_refault_file = get(stat, "workingset_refault_file");
    out.pgsteal_kswapd = get(stat, "pgsteal_kswapd");
    out.pgsteal_direct = get(stat, "pgsteal_direct");
    out.pgsteal_khugepaged = get(stat, "pgsteal_khugepaged");
}

std::optional<MemoryStatistics> memoryV2(Reader& files) {
    const auto usage = files.value("memory", "memory.current");
    if (!usage) return std::nullopt;
    MemoryStatistics out;
    out.usage = *usage;
    out.limit = files.value("memory", "memory.max").value_or(0);
    out.swap_usage = files.value("memory", "memory.swap.current").value_or(0);
    out.swap_limit = files.value("memory", "memory.swap.max").value_or(0);
    const Table stat = files.table("memory", "memory.stat").value_or(Table());
    out.cache = get(stat, "file");
    out.kernel_stack = get(stat, "kernel_stack");
    out.slab = get(stat, "slab");
    out.page_faults = get(stat, "pgfault");
    out.major_page_faults = get(stat, "pgmajfault");
    out.inactive_file = get(stat, "inactive_file");
    out.anon = get(stat, "anon");
    workingSet(stat, out);
    return out;
}

std::optional<MemoryStatistics> memoryV1(Reader& files) {
    const auto usage = files.value("memory", "memory.usage_in_bytes");
    if (!usage) return std::nullopt;
    MemoryStatistics out;
    out.usage = *usage;
    out.limit = files.v1Limit("memory", "memory.limit_in_bytes");
    // These files count memory and swap together.
    const uint64_t both = files.value("memory", "memory.memsw.usage_in_bytes").value_or(*usage);
    out.swap_usage = both > *usage ? both - *usage : 0;
    const uint64_t both_limit = files.v1Limit("memory", "memory.memsw.limit_in_bytes");
    out.swap_limit = both_limit;
    if (both_limit != kNoLimit) {
        out.swap_limit = both_limit > out.limit ? both_limit - out.limit : 0;
    }
    const Table stat = files.table("memory", "memory.stat").value_or(Table());
    out.cache = get(stat, "total_cache");
    out.anon = get(stat, "total_rss");
    out.inactive_file = get(stat, "total_inactive_file");
    out.page_faults = get(stat, "total_pgfault");
    out.major_page_faults = get(stat, "total_pgmajfault");
    out.kernel_stack = get(stat, "total_kernel_stack");
    out.slab = get(stat, "total_slab");
    workingSet(stat, out);
    return out;
}

std::optional<CpuStatistics> cpuV2(Reader& files) {
    const auto stat = files.table("cpu", "cpu.stat");
    if (!stat) return std::nullopt;
    return CpuStatistics{get(*stat, "usage_usec"),   get(*stat, "user_usec"),
                         get(*stat, "system_usec"),  get(*stat, "nr_periods"),
                         get(*stat, "nr_throttled"), get(*stat, "throttled_usec")};
}

std::optional<CpuStatistics> cpuV1(Reader& files) {
    const auto usage_ns = files.value("cpuacct", "cpuacct.usage");
    if (!usage_ns) return std::nullopt;
    CpuStatistics out;
    out.usage = *usage_ns / kNsPerUs;
    const Table stat = files.table("cpuacct", "cpuacct.stat").value_or(Table());
    const auto ticks = static_cast<uint64_t>(std::max(1L, ::sysconf(_SC_CLK_TCK)));
    constexpr uint64_t kUsPerSecond = 1'000'000;
    out.user = get(stat, "user") * kUsPerSecond / ticks;
    out.system = get(stat, "system") * kUsPerSecond / ticks;
    const Table throttling = files.table("cpu", "cpu.stat").value_or(Table());
    out.periods = get(throttling, "nr_periods");
    out.throttled_periods = get(throttling, "nr_throttled");
    out.throttled = get(throttling, "throttled_time") / kNsPerUs;
    return out;
}

BlockIoEntry* entryFor(std::vector<BlockIoEntry>& entries, std::string_view device) {
    const auto numbers = split(device, ':');
    if (numbers.size() != 2) return nullptr;
    const uint64_t major = number(numbers[0]);
    const uint64_t minor = number(numbers[1]);
    for (BlockIoEntry& entry : entries) {
        if (entry.major == major && entry.minor == minor) return &entry;
    }
    entries.push_back(BlockIoEntry{major, minor});
    return &entries.back();
}

std::vector<BlockIoEntry> blockIoV2(Reader& files) {
    std::vector<BlockIoEntry> out;
    const std::string content = files.text("io", "io.stat").value_or("");
    for (const std::string_view line : split(content, '\n')) {
        const auto fields = words(line);
        if (fields.size() < 2) continue;
        BlockIoEntry* entry = entryFor(out, fields[0]);
        if (entry == nullptr) continue;
        for (const std::string_view field : fields) {
            const size_t equals = field.find('=');
            if (equals == std::string_view::npos) continue;
            const std::string_view key = field.substr(0, equals);
            const uint64_t value = number(field.substr(equals + 1));
            if (key == "rbytes") entry->read_bytes = value;
            if (key == "wbytes") entry->write_bytes = value;
            if (key == "rios") entry->reads = value;
            if (key == "wios") entry->writes = value;
        }
    }
    return out;
}

// "8:0 Read 4096" lines of a pair of files; which of the two that hold anything depends on the
// I/O scheduler.
void addBlockIoV1(Reader& files, const char* file, uint64_t BlockIoEntry::*read,
                  uint64_t BlockIoEntry::*write, std::vector<BlockIoEntry>& out) {
    const std::string content = files.text("blkio", file).value_or("");
    for (const std::string_view line : split(content, '\n')) {
        const auto fields = words(line);
        if (fields.size() != 3 || (fields[1] != "Read" && fields[1] != "Write")) continue;
        BlockIoEntry* entry = entryFor(out, fields[0]);
        if (entry == nullptr) continue;
        uint64_t& value = fields[1] == "Read" ? entry->*read : entry->*write;
        value = std::max(value, number(fields[2]));
    }
}

std::vector<BlockIoEntry> blockIoV1(Reader& files) {
    std::vector<BlockIoEntry> out;
    for (const char* file :
         {"blkio.throttle.io_service_bytes_recursive", "blkio.bfq.io_service_bytes_recursive"}) {
        addBlockIoV1(files, file, &BlockIoEntry::read_bytes, &BlockIoEntry::write_bytes, out);
    }
    for (const char* file :
         {"blkio.throttle.io_serviced_recursive", "blkio.bfq.io_serviced_recursive"}) {
        addBlockIoV1(files, file, &BlockIoEntry::reads, &BlockIoEntry::writes, out);
    }
    return out;
}

std::optional<MemoryEvents> memoryEvents(Reader& files, bool unified) {
    const auto table = files.table("memory", unified ? "memory.events" : "memory.oom_control");
    if (!table) return std::nullopt;
    return MemoryEvents{get(*table, "low"), get(*table, "high"),     get(*table, "max"),
                        get(*table, "oom"), get(*table, "oom_kill"), get(*table, "oom_group_kill")};
}

// "2MB" of "hugepages-2048kB", as the kernel names the cgroup's files.
std::string pageSizeName(std::string_view folder) {
    constexpr std::string_view kPrefix = "hugepages-";
    constexpr std::string_view kUnit = "kB";
    if (folder.rfind(kPrefix, 0) != 0 || !folder.ends_with(kUnit)) return {};
    const uint64_t kilobytes =
        number(folder.substr(kPrefix.size(), folder.size() - kPrefix.size() - kUnit.size()));
    constexpr uint64_t kStep = 1024;
    if (kilobytes >= kStep * kStep) return std::to_string(kilobytes / kStep / kStep) + "GB";
    if (kilobytes >= kStep) return std::to_string(kilobytes / kStep) + "MB";
    return std::to_string(kilobytes) + "KB";
}

std::vector<HugePageStatistics> hugePages(Reader& files, bool unified, CgroupFs& fs) {
    std::vector<HugePageStatistics> out;
    const auto folders = fs.childDirs("/sys/kernel/mm/hugepages");
    for (const std::string& folder : folders.value_or(std::vector<std::string>())) {
        HugePageStatistics one;
        one.page_size = pageSizeName(folder);
        const std::string prefix = "hugetlb." + one.page_size;
        const auto value = [&](const char* file) {
            return files.value("hugetlb", (prefix + file).c_str());
        };
        // Where both are counted, what is reserved is what the limit is about.
        const auto reserved = value(unified ? ".rsvd.current" : ".rsvd.usage_in_bytes");
        const auto usage = reserved ? reserved : value(unified ? ".current" : ".usage_in_bytes");
        if (!usage) continue;
        one.usage = *usage;
        const std::string kind = reserved ? ".rsvd" : "";
        if (unified) {
            const auto events = files.table("hugetlb", (prefix + ".events").c_str());
            one.failures = get(events.value_or(Table()), "max");
        } else {
            one.max_usage = value((kind + ".max_usage_in_bytes").c_str()).value_or(0);
            one.failures = value((kind + ".failcnt").c_str()).value_or(0);
        }
        out.push_back(std::move(one));
    }
    return out;
}

// "mlx5_0 hca_handle=2 hca_object=max" lines.
void addRdma(const std::string& text, uint64_t RdmaStatistics::*handles,
             uint64_t RdmaStatistics::*objects, std::vector<RdmaStatistics>& out) {
    for (const std::string_view line : split(text, '\n')) {
        const auto fields = words(line);
        if (fields.size() < 2) continue;
        auto entry = std::find_if(out.begin(), out.end(), [&](const RdmaStatistics& one) {
            return one.device == fields[0];
        });
        if (entry == out.end()) {
            entry = out.insert(out.end(), RdmaStatistics{std::string(fields[0])});
        }
        for (const std::string_view field : fields) {
            const size_t equals = field.find('=');
            if (equals == std::string_view::npos) continue;
            const uint64_t value = number(field.substr(equals + 1));
            if (field.substr(0, equals) == "hca_handle") (*entry).*handles = value;
            if (field.substr(0, equals) == "hca_object") (*entry).*objects = value;
        }
    }
}

std::vector<RdmaStatistics> rdma(Reader& files) {
    std::vector<RdmaStatistics> out;
    addRdma(files.text("rdma", "rdma.current").value_or(""), &RdmaStatistics::handles,
            &RdmaStatistics::objects, out);
    addRdma(files.text("rdma", "rdma.max").value_or(""), &RdmaStatistics::handle_limit,
            &RdmaStatistics::object_limit, out);
    return out;
}

std::vector<NetworkStatistics> networksOf(pid_t pid, CgroupFs& fs) {
    const auto text = fs.read("/proc/" + std::to_string(pid) + "/net/dev");
    if (!text) return {};
    std::vector<NetworkStatistics> out = parseNetDev(*text);
    std::array<char, 64> own{};
    std::array<char, 64> its{};
    const ssize_t own_size = ::readlink("/proc/self/ns/net", own.data(), own.size());
    const ssize_t its_size =
        ::readlink(("/proc/" + std::to_string(pid) + "/ns/net").c_str(), its.data(), its.size());
    if (own_size == its_size && own == its) {
        // The agent's own network: of a host's many devices only what a VM would show.
        std::erase_if(out, [](const NetworkStatistics& network) {
            return network.interface.rfind("eth", 0) != 0;
        });
    }
    return out;
}

}  // namespace

std::vector<NetworkStatistics> parseNetDev(const std::string& text) {
    std::vector<NetworkStatistics> out;
    for (const std::string_view line : split(text, '\n')) {
        const size_t colon = line.find(':');
        if (colon == std::string_view::npos) continue;
        const std::string_view name = base::trim(line.substr(0, colon));
        const auto fields = words(line.substr(colon + 1));
        // Source: proc_pid_net(5): eight receive columns, then eight transmit columns.
        constexpr size_t kColumns = 16;
        if (fields.size() < kColumns || name == "lo") continue;
        out.push_back(NetworkStatistics{std::string(name), number(fields[1]), number(fields[9]),
                                        number(fields[0]), number(fields[8]), number(fields[2]),
                                        number(fields[10])});
    }
    return out;
}

ContainerStatistics readStatistics(const CgroupDirs& dirs, bool unified, pid_t init_pid,
                                   const StatisticsSelection& wanted, CgroupFs& fs) {
    Reader files(dirs, unified, fs);
    ContainerStatistics out;
    if (wanted.process) out.process = processes(files);
    if (wanted.memory) out.memory = unified ? memoryV2(files) : memoryV1(files);
    if (wanted.cpu) out.cpu = unified ? cpuV2(files) : cpuV1(files);
    if (wanted.block_io) out.block_io = unified ? blockIoV2(files) : blockIoV1(files);
    if (wanted.network && init_pid > 0) out.networks = networksOf(init_pid, fs);
    if (wanted.memory_events) out.memory_events = memoryEvents(files, unified);
    if (wanted.huge_pages) out.huge_pages = hugePages(files, unified, fs);
    if (wanted.rdma) out.rdma = rdma(files);
    return out;
}

}  // namespace arca::vminitd
