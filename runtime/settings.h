// The host's configuration file: which sandbox containers get, and what VMs are made of.
//
// /etc/arca-runtime/config.json, or the file that --configuration or $ARCA_CONFIGURATION names; a
// default one that is not there is no error. Annotations of a bundle change only what this file
// allows by name: who writes a pod must not choose hypervisors and kernels.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::runtime {

struct VmSettings {
    std::string kernel, initrd;  // empty: those that came with this program
    std::string qemu = "/usr/bin/qemu-system-x86_64";
    std::string virtiofsd = "/usr/lib/qemu/virtiofsd";
    std::string accel = "auto";          // auto, tcg, kvm
    std::string vsock = "auto";          // auto, kernel, user
    std::string append;                  // more of the kernel's command line
    std::optional<uint32_t> memory_mib;  // absent: from the container's limit
    std::optional<uint32_t> vcpus;       // absent: from the container's quota
    std::chrono::seconds boot_limit{60};
    // Stages whose hooks of the bundle are run by the guest's agent, in guests of others too.
    std::vector<std::string> guest_hooks;
    // A raw disk image that is the root file system instead of the bundle's, and what it holds.
    // Only annotations name one.
    std::string rootfs_image;
    std::string rootfs_type = "ext4";
};

// About guests of others.
struct ConnectSettings {
    std::map<std::string, std::string> paths;  // of the host, and what they are in the guest
    // Features of a bundle that a guest without our extension leaves out, and that may be left out:
    // see strict_spec.h.
    std::vector<std::string> ignore;
};

struct Settings {
    std::string sandbox;  // empty: nothing said
    VmSettings vm;
    ConnectSettings connect;
    std::vector<std::string> allowed_annotations;
};

// Parses the file's text. kInvalidArgument names the member that is unknown, of a wrong type or out
// of range.
base::Result<Settings> parseSettings(const std::string& json);

// Reads the file. `given`: --configuration, "" when absent.
base::Result<Settings> readSettings(const std::string& given);

// Annotations that settings can allow.
inline constexpr char kSandboxAnnotation[] = "io.arca.sandbox";
inline constexpr char kMemoryAnnotation[] = "io.arca.vm.memory_mib";
inline constexpr char kVcpusAnnotation[] = "io.arca.vm.vcpus";
inline constexpr char kKernelAnnotation[] = "io.arca.vm.kernel";
inline constexpr char kInitrdAnnotation[] = "io.arca.vm.initrd";
inline constexpr char kAppendAnnotation[] = "io.arca.vm.append";
inline constexpr char kRootfsImageAnnotation[] = "io.arca.vm.rootfs_image";
inline constexpr char kRootfsTypeAnnotation[] = "io.arca.vm.rootfs_type";
// Replaces vm.guest_hooks: stages, comma-separated.
inline constexpr char kGuestHooksAnnotation[] = "org.arca.hooks.guest";

// Lays the annotations over `settings`. One of ours that is not allowed is kPermissionDenied: to
// ignore it would give a container something else than was asked for.
base::Result<> applyAnnotations(const spec::Annotations& annotations, Settings& settings);

}  // namespace arca::runtime
