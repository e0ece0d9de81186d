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

inline constexpr uint32_t kDefaultCopyMib = 8192;

struct VmSettings {
    std::string kernel, initrd;  // empty: those that came with this program
    std::string qemu = "/usr/bin/qemu-system-x86_64";
    std::string virtiofsd = "/usr/lib/qemu/virtiofsd";
    std::string accel = "auto";  // auto, tcg, kvm
    std::string vsock = "auto";  // auto, kernel, user
    // Interfaces of the stand-in reach the guest: auto, the first by a network card; forwarder, all
    // by frames over vsock; or none do.
    std::string network = "auto";
    // Labels and profiles of the bundle for security modules: ignore, with a warning, as they are
    // the host's; or apply, in the guest.
    std::string labels = "ignore";
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
    // "share": virtiofs. "copy": what a container has of the host is copied into the guest.
    std::string rootfs = "share";
    uint32_t copy_mib = kDefaultCopyMib;  // the most of one container
};

// A block device of a guest's, for a container's root file system.
struct GuestDevice {
    std::string path;  // empty: none
    std::string type = "ext4";
    std::vector<std::string> options;
};

// About guests of others.
struct ConnectSettings {
    std::map<std::string, std::string> paths;  // of the host, and what they are in the guest
    // "paths": where `paths` says that they are. "copy": copied into the guest.
    std::string rootfs = "paths";
    std::string binds;   // sources of bind mounts; empty: copied if, and only if, the rootfs is
    GuestDevice device;  // instead of the bundle's root file system
    uint32_t copy_mib = kDefaultCopyMib;  // the most of one container
    [[nodiscard]] bool copiesRootfs() const { return rootfs == "copy" && device.path.empty(); }
    [[nodiscard]] bool copiesBinds() const { return (binds.empty() ? rootfs : binds) == "copy"; }
    // Features of a bundle that a guest without our extension leaves out, and that may be left out:
    // see strict_spec.h.
    std::vector<std::string> ignore;
    std::string network = "none";  // forwarder: one listens in the guest, or its hooks start one
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
inline constexpr char kRootfsDeviceAnnotation[] = "io.arca.connect.rootfs_device";
inline constexpr char kRootfsDeviceTypeAnnotation[] = "io.arca.connect.rootfs_type";
// Separated by commas.
inline constexpr char kRootfsDeviceOptionsAnnotation[] = "io.arca.connect.rootfs_options";
// Replaces vm.guest_hooks: stages, comma-separated.
inline constexpr char kGuestHooksAnnotation[] = "io.arca.hooks.guest";

// Lays the annotations over `settings`. One of ours that is not allowed is kPermissionDenied: to
// ignore it would give a container something else than was asked for.
base::Result<> applyAnnotations(const spec::Annotations& annotations, Settings& settings);

}  // namespace arca::runtime
