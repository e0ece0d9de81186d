// The configuration that `spec` writes. What is in it is what runc's command of that name has, so
// that scripts which edit the file keep working.
#include "spec/json_writer.h"
#include "spec/version.h"
#include "spec/write.h"

namespace arca::spec {
namespace {

Process templateProcess() {
    const std::vector<std::string> caps = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"};
    Process process;
    process.terminal = true;
    process.args = {"sh"};
    process.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "TERM=xterm"};
    process.cwd = "/";
    process.capabilities = Capabilities{caps, caps, {}, caps, {}};
    Rlimit files;
    files.type = "RLIMIT_NOFILE";
    files.soft = files.hard = 1024;
    process.rlimits = {files};
    process.noNewPrivileges = true;
    return process;
}

Mount mountOf(std::string destination, std::string type, std::string source,
              std::vector<std::string> options) {
    Mount mount;
    mount.destination = std::move(destination);
    mount.type = std::move(type);
    mount.source = std::move(source);
    mount.options = std::move(options);
    return mount;
}

std::vector<Mount> templateMounts(bool rootless) {
    std::vector<std::string> pts = {"nosuid", "noexec", "newinstance", "ptmxmode=0666",
                                    "mode=0620"};
    // Group 5 is not mapped in a user namespace with one id.
    if (!rootless) pts.emplace_back("gid=5");
    // A sysfs of its own needs a network namespace of its own.
    const Mount sys =
        rootless ? mountOf("/sys", "none", "/sys", {"rbind", "nosuid", "noexec", "nodev", "ro"})
                 : mountOf("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"});
    return {
        mountOf("/proc", "proc", "proc", {}),
        mountOf("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
        mountOf("/dev/pts", "devpts", "devpts", pts),
        mountOf("/dev/shm", "tmpfs", "shm",
                {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
        mountOf("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
        sys,
        mountOf("/sys/fs/cgroup", "cgroup", "cgroup",
                {"nosuid", "noexec", "nodev", "relatime", "ro"}),
    };
}

Linux templateLinux(const TemplateOptions& options) {
    Linux out;
    out.namespaces = {{NamespaceType::kPid, {}}};
    if (!options.rootless) {
        out.namespaces.push_back({NamespaceType::kNetwork, {}});
        DeviceRule none;
        none.access = "rwm";
        out.resources.emplace().devices = {none};
    }
    for (const NamespaceType type :
         {NamespaceType::kIpc, NamespaceType::kUts, NamespaceType::kMount}) {
        out.namespaces.push_back({type, {}});
    }
    if (options.cgroup2) out.namespaces.push_back({NamespaceType::kCgroup, {}});
    if (options.rootless) {
        out.namespaces.push_back({NamespaceType::kUser, {}});
        out.uidMappings = {{0, options.uid, 1}};
        out.gidMappings = {{0, options.gid, 1}};
    }
    out.maskedPaths = {"/proc/acpi",        "/proc/asound",        "/proc/kcore",
                       "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
                       "/proc/timer_stats", "/proc/sched_debug",   "/sys/firmware",
                       "/proc/scsi"};
    out.readonlyPaths = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    return out;
}

}  // namespace

std::string templateConfig(const TemplateOptions& options) {
    Spec spec;
    spec.ociVersion = kOciVersionMax;
    spec.process = templateProcess();
    spec.root = Root{"rootfs", true};
    spec.hostname = "arca";
    spec.mounts = templateMounts(options.rootless);
    spec.linux = templateLinux(options);
    spec.has_linux = true;
    return indentJson(writeSpec(spec), "\t");
}

}  // namespace arca::spec
