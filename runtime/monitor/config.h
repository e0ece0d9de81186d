// What a command tells the monitor that it starts: <sandbox>/config.json.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::runtime {

struct MonitorConfig {
    std::string sandbox_id;  // the container that owns it, for logs and process titles
    // "vm": the monitor boots one; else the address of a guest that runs already.
    std::string address;
    std::chrono::seconds call_limit{60};  // for any call of the guest but WaitProcess
    // ---- only of a VM ----
    std::string qemu, virtiofsd, arca_vsock;  // programs, absolute
    std::string kernel, initrd;               // files, absolute
    // What an emulated machine boots instead of `kernel`: the same one, unpacked. Empty: none.
    std::string emulated_kernel;
    // "tcg", "kvm", or "auto": kvm if it boots the guest, and the answer is left at kvm_verdict.
    std::string accel, kvm_verdict;
    std::string vsock;   // "kernel", "user", or "auto": kernel where it is
    std::string append;  // more words for the kernel's command line
    uint32_t memory_mib = 0;
    uint32_t vcpus = 1;
    bool share = true;               // by virtiofs; else the guest has nothing of the host's files
    std::vector<std::string> disks;  // "ro:PATH" or "rw:PATH", raw images
    bool card = false;               // a network card, for the container's first interface
    std::chrono::seconds boot_limit{60};
};

std::string writeMonitorConfig(const MonitorConfig& config);
// kInternal when the text is not what the function above makes.
base::Result<MonitorConfig> parseMonitorConfig(std::string_view json);

}  // namespace arca::runtime
