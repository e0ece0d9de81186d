#include "runtime/statistics.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

#include "sandbox_context.pb.h"

namespace arca::runtime {
namespace {

using Json = nlohmann::ordered_json;
namespace api = com::apple::containerization::sandbox::v3;

constexpr uint64_t kNsPerUs = 1000;
constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

Json cpuJson(const api::CPUStats& cpu) {
    return {{"usage",
             {{"total", cpu.usage_usec() * kNsPerUs},
              {"kernel", cpu.system_usec() * kNsPerUs},
              {"user", cpu.user_usec() * kNsPerUs}}},
            {"throttling",
             {{"periods", cpu.throttling_periods()},
              {"throttledPeriods", cpu.throttled_periods()},
              {"throttledTime", cpu.throttled_time_usec() * kNsPerUs}}}};
}

Json memoryJson(const api::MemoryStats& memory) {
    // "swap" of runc's shape is memory and swap together.
    const uint64_t both = memory.usage_bytes() + memory.swap_usage_bytes();
    const bool limited = memory.swap_limit_bytes() != kUnlimited &&
                         memory.limit_bytes() < kUnlimited - memory.swap_limit_bytes();
    const uint64_t both_limit =
        limited ? memory.limit_bytes() + memory.swap_limit_bytes() : kUnlimited;
    return {{"cache", memory.cache_bytes()},
            {"usage", {{"limit", memory.limit_bytes()}, {"usage", memory.usage_bytes()}}},
            {"swap", {{"limit", both_limit}, {"usage", both}}},
            {"raw",
             {{"anon", memory.anon()},
              {"inactive_file", memory.inactive_file()},
              {"kernel_stack", memory.kernel_stack_bytes()},
              {"slab", memory.slab_bytes()},
              {"pgfault", memory.page_faults()},
              {"pgmajfault", memory.major_page_faults()},
              {"workingset_refault_anon", memory.workingset_refault_anon()},
              {"workingset_refault_file", memory.workingset_refault_file()}}}};
}

Json blkioJson(const api::BlockIOStats& block_io) {
    Json bytes = Json::array();
    Json operations = Json::array();
    const auto add = [](Json& list, const api::BlockIOEntry& entry, const char* op,
                        uint64_t value) {
        list.push_back(
            {{"major", entry.major()}, {"minor", entry.minor()}, {"op", op}, {"value", value}});
    };
    for (const api::BlockIOEntry& entry : block_io.devices()) {
        add(bytes, entry, "Read", entry.read_bytes());
        add(bytes, entry, "Write", entry.write_bytes());
        add(operations, entry, "Read", entry.read_operations());
        add(operations, entry, "Write", entry.write_operations());
    }
    Json json = Json::object();
    if (!bytes.empty()) json["ioServiceBytesRecursive"] = std::move(bytes);
    if (!operations.empty()) json["ioServicedRecursive"] = std::move(operations);
    return json;
}

Json networkJson(const api::ContainerStats& stats) {
    if (stats.networks_size() == 0) return nullptr;
    Json list = Json::array();
    for (const api::NetworkStats& network : stats.networks()) {
        list.push_back({{"Name", network.interface()},
                        {"RxBytes", network.receivedbytes()},
                        {"RxPackets", network.receivedpackets()},
                        {"RxErrors", network.receivederrors()},
                        {"TxBytes", network.transmittedbytes()},
                        {"TxPackets", network.transmittedpackets()},
                        {"TxErrors", network.transmittederrors()}});
    }
    return list;
}

Json hugetlbJson(const api::ContainerStats& stats) {
    Json json = Json::object();
    for (const api::HugePageStats& pages : stats.huge_pages()) {
        json[pages.page_size()] = {{"usage", pages.usage_bytes()},
                                   {"max", pages.max_usage_bytes()},
                                   {"failcnt", pages.failures()}};
    }
    return json;
}

// The kernel counts them in 32 bits; all of these say that there is no limit.
uint32_t rdmaNumber(uint64_t value) {
    return static_cast<uint32_t>(std::min<uint64_t>(value, std::numeric_limits<uint32_t>::max()));
}

// As libcontainer has it: devices without a limit are among the limits too.
Json rdmaJson(const api::ContainerStats& stats) {
    Json current = Json::array();
    Json limit = Json::array();
    const auto add = [](Json& list, const std::string& device, uint64_t handles, uint64_t objects) {
        list.push_back({{"device", device},
                        {"hca_handles", rdmaNumber(handles)},
                        {"hca_objects", rdmaNumber(objects)}});
    };
    for (const api::RdmaStats& one : stats.rdma()) {
        add(current, one.device(), one.handles(), one.objects());
        add(limit, one.device(), one.handle_limit(), one.object_limit());
    }
    return {{"rdma_current", std::move(current)}, {"rdma_limit", std::move(limit)}};
}

}  // namespace

std::string statisticsJson(const api::ContainerStats& stats) {
    Json pids{{"current", stats.process().current()}};
    const uint64_t limit = stats.process().limit();
    if (limit != 0 && limit != kUnlimited) pids["limit"] = limit;
    Json json{{"cpu", cpuJson(stats.cpu())},          {"cpuset", Json::object()},
              {"memory", memoryJson(stats.memory())}, {"pids", std::move(pids)},
              {"blkio", blkioJson(stats.block_io())}, {"hugetlb", hugetlbJson(stats)},
              {"intel_rdt", Json::object()},          {"network_interfaces", networkJson(stats)}};
    if (stats.rdma_size() > 0) json["rdma"] = rdmaJson(stats);
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace arca::runtime
