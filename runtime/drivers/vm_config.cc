#include "runtime/drivers/vm_config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/files.h"
#include "runtime/kvm_verdict.h"
#include "runtime/programs.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

// The kernel, the agent and the initramfs, and what the page cache needs to be of use.
constexpr int64_t kOverheadMib = 192;
constexpr int64_t kDefaultMib = 512;
constexpr int64_t kMib = int64_t{1} << 20;

Result<std::string> guestFile(const std::string& given, const char* name) {
    if (given.empty()) return findGuestFile(name);
    if (::access(given.c_str(), R_OK) != 0) return base::failErrno("the guest's " + given);
    return given;
}

Result<> checkProgram(const std::string& path, const char* package) {
    if (::access(path.c_str(), X_OK) == 0) return {};
    return fail(Code::kNotFound, path + ": not there; Debian has it in package " + package);
}

}  // namespace

uint32_t guestMemoryMib(int64_t limit_bytes) {
    if (limit_bytes <= 0) return static_cast<uint32_t>(kDefaultMib);
    constexpr int64_t kMostMib = int64_t{1} << 20;
    const int64_t limit_mib = std::min((limit_bytes - 1) / kMib + 1, kMostMib);
    return static_cast<uint32_t>(limit_mib + kOverheadMib);
}

uint32_t guestVcpus(int64_t quota, uint64_t period, uint32_t available) {
    if (quota <= 0 || period == 0) return 1;
    const uint64_t wanted = (static_cast<uint64_t>(quota) - 1) / period + 1;
    return static_cast<uint32_t>(std::clamp<uint64_t>(wanted, 1, std::max(available, 1U)));
}

Result<MonitorConfig> makeVmConfig(const VmSettings& settings, const spec::Spec& spec,
                                   const std::string& sandbox_id) {
    MonitorConfig config;
    config.sandbox_id = sandbox_id;
    config.address = "vm";
    config.qemu = settings.qemu;
    config.virtiofsd = settings.virtiofsd;
    ARCA_CHECK(checkProgram(config.qemu, "qemu-system-x86"));
    ARCA_CHECK(checkProgram(config.virtiofsd, "qemu-system-common"));
    ARCA_TRY(const Program vsock, findProgram("arca-vsock"));
    config.arca_vsock = vsock.path;
    ARCA_TRY(config.kernel, guestFile(settings.kernel, "vmlinuz"));
    if (settings.kernel.empty()) {
        // Of the same folder, or it may be another kernel than the initramfs has modules for.
        std::string unpacked = config.kernel.substr(0, config.kernel.rfind('/')) + "/vmlinux";
        if (::access(unpacked.c_str(), R_OK) == 0) config.emulated_kernel = std::move(unpacked);
    }
    ARCA_TRY(config.initrd, guestFile(settings.initrd, "initramfs.cpio"));
    config.kvm_verdict = kvmVerdictPath();
    config.accel = chooseAccel(settings.accel, config.kvm_verdict);
    config.vsock = settings.vsock;
    config.append = settings.append;
    config.boot_limit = settings.boot_limit;
    int64_t memory_limit = 0;
    int64_t quota = 0;
    uint64_t period = 0;
    if (spec.linux.resources) {
        const spec::Resources& resources = *spec.linux.resources;
        if (resources.memory) memory_limit = resources.memory->limit.value_or(0);
        constexpr uint64_t kDefaultPeriod = 100'000;
        if (resources.cpu) {
            quota = resources.cpu->quota.value_or(0);
            period = resources.cpu->period.value_or(kDefaultPeriod);
        }
    }
    config.memory_mib = settings.memory_mib.value_or(guestMemoryMib(memory_limit));
    config.vcpus =
        settings.vcpus.value_or(guestVcpus(quota, period, std::thread::hardware_concurrency()));
    return config;
}

}  // namespace arca::runtime
