#include "runtime/drivers/guest_spec.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "proto/monitor_protocol.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

namespace {

bool hasOption(const spec::Mount& mount, std::string_view option) {
    return std::find(mount.options.begin(), mount.options.end(), option) != mount.options.end();
}

// The guest's file server is not told of the host's later mounts in a way that a recursive
// read-only bind would need; both kinds of read-only are made on the host, where the guest cannot
// undo them.
bool isReadOnly(const spec::Mount& mount) {
    bool read_only = false;
    for (const std::string& option : mount.options) {
        if (option == "ro" || option == "rro") read_only = true;
        if (option == "rw" || option == "rrw") read_only = false;
    }
    return read_only;
}

auto unsupported(const std::string& what) {
    return fail(Code::kUnsupported, what + ": not supported in a sandbox with a guest");
}

Result<> checkSupported(const spec::Spec& spec) {
    const spec::Linux& linux_part = spec.linux;
    // The descriptor of the listener belongs to the guest's kernel. Without SCMP_ACT_NOTIFY nobody
    // would listen, and the path has no meaning.
    if (linux_part.seccomp && linux_part.seccomp->notifies()) {
        return unsupported("linux.seccomp: SCMP_ACT_NOTIFY");
    }
    if (linux_part.intelRdt) return unsupported("linux.intelRdt");
    if (!linux_part.netDevices.empty()) return unsupported("linux.netDevices");
    for (const spec::Mount& mount : spec.mounts) {
        const bool mapped = hasOption(mount, "idmap") || hasOption(mount, "ridmap") ||
                            !mount.uidMappings.empty() || !mount.gidMappings.empty();
        if (mount.isBind() && mapped) {
            return unsupported("id mappings of the mount at " + base::printable(mount.destination));
        }
    }
    return {};
}

// Private unless the bundle says otherwise, as where the kernel binds.
bool followsHost(const spec::Mount& mount) {
    return std::any_of(mount.options.begin(), mount.options.end(), [](const std::string& option) {
        return option == "slave" || option == "rslave" || option == "shared" || option == "rshared";
    });
}

SharedPath sharedPathOf(const spec::Mount& mount, size_t number) {
    return {"m" + std::to_string(number),
            mount.source,
            isReadOnly(mount),
            hasOption(mount, "rbind") || !hasOption(mount, "bind"),
            {},
            followsHost(mount)};
}

Result<> moveMounts(GuestSpec& guest, const Placement& place) {
    for (spec::Mount& mount : guest.spec.mounts) {
        if (!mount.isBind()) continue;
        SharedPath share = sharedPathOf(mount, guest.shares.size());
        // First, so that the bundle can undo them, as it can here.
        const auto restrictions = restrictionsOf(share.source);
        mount.options.insert(mount.options.begin(), restrictions.begin(), restrictions.end());
        ARCA_TRY(share.guest_path, place(share));
        mount.source = share.guest_path;
        guest.shares.push_back(std::move(share));
    }
    return {};
}

Result<> moveNamespaces(GuestSpec& guest, const NamespaceTranslator& translate) {
    for (spec::Namespace& ns : guest.spec.linux.namespaces) {
        if (ns.type == spec::NamespaceType::kNetwork) {
            // The engine plugs into the stand-in's; the container has one of its own in the guest.
            guest.network_namespace = ns.path;
            guest.new_network_namespace = ns.path.empty();
            ns.path.clear();
        } else if (!ns.path.empty()) {
            ARCA_TRY(ns.path, translate(ns.path));
        }
    }
    return {};
}

// systemd's socket of the host cannot be reached from another kernel.
void dropNotifySocket(spec::Spec& spec) {
    if (!spec.process) return;
    constexpr std::string_view kVariable = "NOTIFY_SOCKET=";
    auto& env = spec.process->env;
    const auto found = std::find_if(env.begin(), env.end(), [&](const std::string& entry) {
        return entry.rfind(kVariable, 0) == 0;
    });
    if (found == env.end()) return;
    base::log::warning("NOTIFY_SOCKET: readiness is not passed on from a guest");
    env.erase(found);
}

}  // namespace

void leaveLabelsOut(spec::Spec& spec) {
    const auto leave_out = [](std::string& label, const char* name) {
        if (label.empty()) return;
        base::log::warning(std::string(name) +
                           " is ignored: it is of this host, the container has a "
                           "kernel of its own");
        label.clear();
    };
    leave_out(spec.linux.mountLabel, "mountLabel");
    if (!spec.process) return;
    leave_out(spec.process->apparmorProfile, "apparmorProfile");
    leave_out(spec.process->selinuxLabel, "selinuxLabel");
}

std::string guestFolder(const std::string& container_id) {
    return "/run/container/" + container_id;
}

std::string guestRootfs(const std::string& container_id) {
    return guestFolder(container_id) + "/rootfs";
}

Placement sharePlacement(const std::string& container_id) {
    return [folder = std::string(proto::kGuestShareFolder) + "/" + container_id + "/"](
               const SharedPath& share) -> Result<std::string> { return folder + share.name; };
}

std::vector<std::string> restrictionsOf(const std::string& path) {
    struct statvfs st {};
    if (::statvfs(path.c_str(), &st) != 0) return {};  // opening it will say why
    constexpr std::array<std::pair<unsigned long, const char*>, 4> kFlags{
        {{ST_NOSUID, "nosuid"},
         {ST_NODEV, "nodev"},
         {ST_NOEXEC, "noexec"},
         {ST_NOATIME, "noatime"}}};
    std::vector<std::string> words;
    for (const auto& [flag, word] : kFlags)
        if ((st.f_flag & flag) != 0) words.emplace_back(word);
    return words;
}

std::vector<SharedPath> hostPaths(const spec::Spec& spec) {
    std::vector<SharedPath> paths;
    if (spec.root) paths.push_back({kRootfsShare, spec.root->path, false, true, {}});
    for (const spec::Mount& mount : spec.mounts) {
        if (mount.isBind()) paths.push_back(sharedPathOf(mount, paths.size()));
    }
    return paths;
}

Placement copyPlacement(const std::string& container_id) {
    return [container_id](const SharedPath& share) -> Result<std::string> {
        if (share.name == kRootfsShare) return guestRootfs(container_id);
        const std::string folder = guestFolder(container_id) + "/copies/" + share.name;
        struct stat st {};
        if (::stat(share.source.c_str(), &st) != 0) {
            return base::failErrno(base::printable(share.source));
        }
        if (S_ISDIR(st.st_mode)) return folder;
        if (S_ISREG(st.st_mode)) return folder + "/" + proto::kCopiedFile;
        return fail(Code::kUnsupported, base::printable(share.source) +
                                            ": neither a folder nor a file, and nothing else can "
                                            "be copied into a guest");
    };
}

std::string copyFolder(const SharedPath& path) {
    const std::string file = std::string("/") + proto::kCopiedFile;
    const bool is_file = path.name != kRootfsShare && path.guest_path.ends_with(file);
    return is_file ? path.guest_path.substr(0, path.guest_path.size() - file.size())
                   : path.guest_path;
}

Placement mappedPlacement(const std::map<std::string, std::string>& paths) {
    return [paths](const SharedPath& share) -> Result<std::string> {
        const std::string source = base::cleanPath(share.source);
        // From behind: a longer prefix of the same path sorts after a shorter one.
        for (auto entry = paths.rbegin(); entry != paths.rend(); ++entry) {
            const std::string& host = entry->first;
            const bool all = host == "/";
            if (source == host ||
                (source.rfind(host, 0) == 0 && (all || source[host.size()] == '/'))) {
                return base::cleanPath(entry->second + "/" + source.substr(all ? 0 : host.size()));
            }
        }
        return fail(Code::kUnsupported,
                    base::printable(source) +
                        ": no path of the guest is known for it; connect.paths of "
                        "the configuration can name one");
    };
}

bool parseNamespacePath(const std::string& path, long& pid, std::string& kind) {
    const auto parts = base::split(path, '/');
    if (parts.size() != 5 || !parts[0].empty() || parts[1] != "proc" || parts[3] != "ns") {
        return false;
    }
    const auto number = base::parseNumber<long>(parts[2]);
    if (!number || *number <= 0) return false;
    pid = *number;
    kind = parts[4];
    return true;
}

Result<GuestSpec> makeGuestSpec(const spec::Spec& spec, const std::string& container_id,
                                const Placements& places, const NamespaceTranslator& translate) {
    ARCA_CHECK(checkSupported(spec));
    GuestSpec guest;
    guest.spec = spec;
    SharedPath root{kRootfsShare, spec.root->path, false, true, {}};
    ARCA_TRY(root.guest_path, places.rootfs(root));
    guest.shares.push_back(std::move(root));
    guest.spec.root->path = guestRootfs(container_id);
    guest.spec.linux.cgroupsPath = "/container/" + container_id;
    ARCA_CHECK(moveMounts(guest, places.binds));
    ARCA_CHECK(moveNamespaces(guest, translate));
    dropNotifySocket(guest.spec);
    return guest;
}

}  // namespace arca::runtime
