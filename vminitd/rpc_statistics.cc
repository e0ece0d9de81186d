#include "vminitd/rpc_statistics.h"

namespace arca::vminitd {

StatisticsSelection selectionOf(const wire::ContainerStatisticsRequest& request) {
    if (request.categories().empty()) return {};
    // Of our own groups the protocol has no names: they come when all are asked for.
    StatisticsSelection out{false, false, false, false, false, false, false, false};
    for (const int category : request.categories()) {
        out.process = out.process || category == wire::STAT_CATEGORY_PROCESS;
        out.memory = out.memory || category == wire::STAT_CATEGORY_MEMORY;
        out.cpu = out.cpu || category == wire::STAT_CATEGORY_CPU;
        out.block_io = out.block_io || category == wire::STAT_CATEGORY_BLOCK_IO;
        out.network = out.network || category == wire::STAT_CATEGORY_NETWORK;
        out.memory_events = out.memory_events || category == wire::STAT_CATEGORY_MEMORY_EVENTS;
    }
    return out;
}

namespace {

void fillMemory(const MemoryStatistics& from, wire::MemoryStats& to) {
    to.set_usage_bytes(from.usage);
    to.set_limit_bytes(from.limit);
    to.set_swap_usage_bytes(from.swap_usage);
    to.set_swap_limit_bytes(from.swap_limit);
    to.set_cache_bytes(from.cache);
    to.set_kernel_stack_bytes(from.kernel_stack);
    to.set_slab_bytes(from.slab);
    to.set_page_faults(from.page_faults);
    to.set_major_page_faults(from.major_page_faults);
    to.set_inactive_file(from.inactive_file);
    to.set_anon(from.anon);
    to.set_workingset_refault_anon(from.workingset_refault_anon);
    to.set_workingset_refault_file(from.workingset_refault_file);
    to.set_pgsteal_kswapd(from.pgsteal_kswapd);
    to.set_pgsteal_direct(from.pgsteal_direct);
    to.set_pgsteal_khugepaged(from.pgsteal_khugepaged);
}

void fillCpu(const CpuStatistics& from, wire::CPUStats& to) {
    to.set_usage_usec(from.usage);
    to.set_user_usec(from.user);
    to.set_system_usec(from.system);
    to.set_throttling_periods(from.periods);
    to.set_throttled_periods(from.throttled_periods);
    to.set_throttled_time_usec(from.throttled);
}

void fillBlockIo(const std::vector<BlockIoEntry>& from, wire::BlockIOStats& to) {
    for (const BlockIoEntry& entry : from) {
        wire::BlockIOEntry& out = *to.add_devices();
        out.set_major(entry.major);
        out.set_minor(entry.minor);
        out.set_read_bytes(entry.read_bytes);
        out.set_write_bytes(entry.write_bytes);
        out.set_read_operations(entry.reads);
        out.set_write_operations(entry.writes);
    }
}

void fillNetwork(const NetworkStatistics& from, wire::NetworkStats& to) {
    to.set_interface(from.interface);
    to.set_receivedpackets(from.rx_packets);
    to.set_transmittedpackets(from.tx_packets);
    to.set_receivedbytes(from.rx_bytes);
    to.set_transmittedbytes(from.tx_bytes);
    to.set_receivederrors(from.rx_errors);
    to.set_transmittederrors(from.tx_errors);
}

void fillOwnGroups(const ContainerStatistics& from, wire::ContainerStats& to) {
    for (const HugePageStatistics& pages : from.huge_pages) {
        wire::HugePageStats& out = *to.add_huge_pages();
        out.set_page_size(pages.page_size);
        out.set_usage_bytes(pages.usage);
        out.set_max_usage_bytes(pages.max_usage);
        out.set_failures(pages.failures);
    }
    for (const RdmaStatistics& device : from.rdma) {
        wire::RdmaStats& out = *to.add_rdma();
        out.set_device(device.device);
        out.set_handles(device.handles);
        out.set_objects(device.objects);
        out.set_handle_limit(device.handle_limit);
        out.set_object_limit(device.object_limit);
    }
}

}  // namespace

void fillStatistics(const std::string& container_id, const ContainerStatistics& from,
                    wire::ContainerStats& to) {
    to.set_container_id(container_id);
    if (from.process) {
        to.mutable_process()->set_current(from.process->current);
        to.mutable_process()->set_limit(from.process->limit);
    }
    if (from.memory) fillMemory(*from.memory, *to.mutable_memory());
    if (from.cpu) fillCpu(*from.cpu, *to.mutable_cpu());
    if (from.block_io) fillBlockIo(*from.block_io, *to.mutable_block_io());
    fillOwnGroups(from, to);
    for (const NetworkStatistics& network : from.networks) fillNetwork(network, *to.add_networks());
    if (from.memory_events) {
        wire::MemoryEventStats& out = *to.mutable_memory_events();
        out.set_low(from.memory_events->low);
        out.set_high(from.memory_events->high);
        out.set_max(from.memory_events->max);
        out.set_oom(from.memory_events->oom);
        out.set_oom_kill(from.memory_events->oom_kill);
        out.set_oom_group_kill(from.memory_events->oom_group_kill);
    }
}

}  // namespace arca::vminitd
