#include "runtime/monitor/config.h"

#include <nlohmann/json.hpp>

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

std::string writeMonitorConfig(const MonitorConfig& config) {
    const nlohmann::ordered_json json{{"sandbox_id", config.sandbox_id},
                                      {"address", config.address},
                                      {"call_seconds", config.call_limit.count()},
                                      {"qemu", config.qemu},
                                      {"virtiofsd", config.virtiofsd},
                                      {"arca_vsock", config.arca_vsock},
                                      {"kernel", config.kernel},
                                      {"emulated_kernel", config.emulated_kernel},
                                      {"initrd", config.initrd},
                                      {"accel", config.accel},
                                      {"kvm_verdict", config.kvm_verdict},
                                      {"vsock", config.vsock},
                                      {"append", config.append},
                                      {"memory_mib", config.memory_mib},
                                      {"vcpus", config.vcpus},
                                      {"share", config.share},
                                      {"disks", config.disks},
                                      {"card", config.card},
                                      {"boot_seconds", config.boot_limit.count()}};
    return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<MonitorConfig> parseMonitorConfig(std::string_view text) {
    try {
        const auto json = nlohmann::json::parse(text);
        MonitorConfig config;
        json.at("sandbox_id").get_to(config.sandbox_id);
        json.at("address").get_to(config.address);
        config.call_limit = std::chrono::seconds(json.at("call_seconds").get<int64_t>());
        json.at("qemu").get_to(config.qemu);
        json.at("virtiofsd").get_to(config.virtiofsd);
        json.at("arca_vsock").get_to(config.arca_vsock);
        json.at("kernel").get_to(config.kernel);
        json.at("emulated_kernel").get_to(config.emulated_kernel);
        json.at("initrd").get_to(config.initrd);
        json.at("accel").get_to(config.accel);
        json.at("kvm_verdict").get_to(config.kvm_verdict);
        json.at("vsock").get_to(config.vsock);
        json.at("append").get_to(config.append);
        json.at("memory_mib").get_to(config.memory_mib);
        json.at("vcpus").get_to(config.vcpus);
        json.at("share").get_to(config.share);
        json.at("disks").get_to(config.disks);
        json.at("card").get_to(config.card);
        config.boot_limit = std::chrono::seconds(json.at("boot_seconds").get<int64_t>());
        return config;
    } catch (const nlohmann::json::exception& error) {
        return fail(Code::kInternal, std::string("the sandbox's config.json: ") + error.what());
    }
}

}  // namespace arca::runtime
