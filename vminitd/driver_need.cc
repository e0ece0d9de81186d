#include "vminitd/driver_need.h"

#include <algorithm>
#include <array>

#include "spec/network_annotation.h"

namespace arca::vminitd {

namespace {

// Part of every kernel that can run containers.
constexpr std::array<std::string_view, 9> kBuiltIn{
    "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "ramfs"};
constexpr char kVirtiofs[] = "virtiofs";
// The first interface has the machine's network card, if there is one.
const std::vector<std::string> kNetworkDrivers{"tun", "virtio_net"};

bool isBind(const std::vector<std::string>& options) {
    return std::any_of(options.begin(), options.end(), [](const std::string& option) {
        return option == "bind" || option == "rbind";
    });
}

// Absent capabilities are those of the agent: all.
bool mayUseDrivers(const spec::Process& process) {
    if (!process.capabilities) return true;
    const auto& held = process.capabilities->bounding;
    return std::any_of(held.begin(), held.end(), [](const std::string& name) {
        return name == "CAP_SYS_ADMIN" || name == "CAP_NET_ADMIN";
    });
}

}  // namespace

DriverNeed driversForMount(std::string_view type, const std::vector<std::string>& options) {
    if (isBind(options)) return {DriverNeed::Kind::kNone};
    if (type == kVirtiofs) return {DriverNeed::Kind::kSome, {kVirtiofs}};
    const bool built_in = std::find(kBuiltIn.begin(), kBuiltIn.end(), type) != kBuiltIn.end();
    return {built_in ? DriverNeed::Kind::kNone : DriverNeed::Kind::kAll};
}

DriverNeed driversForLink(std::string_view name) {
    return {name == "lo" ? DriverNeed::Kind::kNone : DriverNeed::Kind::kAll};
}

DriverNeed driversForProcess(const spec::Spec& config) {
    const DriverNeed all{DriverNeed::Kind::kAll};
    if (!config.process || mayUseDrivers(*config.process)) return all;
    if (!config.linux.devices.empty() || !config.linux.netDevices.empty()) return all;
    const bool plain =
        std::all_of(config.mounts.begin(), config.mounts.end(), [](const spec::Mount& mount) {
            return driversForMount(mount.type, mount.options).kind == DriverNeed::Kind::kNone;
        });
    if (!plain) return all;
    return spec::isNetworkForwarded(config) ? DriverNeed{DriverNeed::Kind::kSome, kNetworkDrivers}
                                            : DriverNeed{DriverNeed::Kind::kNone};
}

}  // namespace arca::vminitd
