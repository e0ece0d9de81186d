// A bundle's configuration as a guest can use it: what refers to the host is taken out, moved into
// the share, or refused.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::runtime {

// Something of the host that the guest is to see.
struct SharedPath {
    std::string name;  // in the container's folder of the share
    std::string source;
    bool read_only = false;
    bool recursive = true;
    std::string guest_path;  // where it is there
    bool follows = true;     // what the host mounts and unmounts there later
};

struct GuestSpec {
    spec::Spec spec;
    std::vector<SharedPath> shares;  // the first is the root file system
    // What the stand-in gets instead of the container.
    std::string network_namespace;
    bool new_network_namespace = false;
};

// Takes out what is for security modules of this host (config.md, apparmorProfile, selinuxLabel;
// config-linux.md, mountLabel), with a warning each: the guest's kernel knows none of it, and the
// container is confined by its machine.
void leaveLabelsOut(spec::Spec& spec);

// The folder that the guest's agent has for a container, and deletes with it.
std::string guestFolder(const std::string& container_id);
// Name of the root file system in the share, and where it is in the guest.
inline constexpr char kRootfsShare[] = "rootfs";
std::string guestRootfs(const std::string& container_id);

// Mount options for what the host's mount forbids that a path is on (nosuid, nodev, noexec,
// noatime): a guest does not see them, and a bind mount here would have them.
std::vector<std::string> restrictionsOf(const std::string& path);

// The root file system and the sources of bind mounts, as far as the host is concerned.
std::vector<SharedPath> hostPaths(const spec::Spec& spec);

// Turns a path below /proc/<pid of a stand-in>/ns into the guest's own; kNotFound when that process
// is no stand-in of this sandbox.
using NamespaceTranslator = std::function<base::Result<std::string>(const std::string& path)>;

// Where in the guest something of the host can be found.
using Placement = std::function<base::Result<std::string>(const SharedPath& share)>;
// In the share of a VM that the monitor boots.
Placement sharePlacement(const std::string& container_id);
// In the container's folder of the guest, for what is copied or mounted there. kUnsupported for
// what is neither a folder nor a regular file: no socket or device of the host works in a guest.
Placement copyPlacement(const std::string& container_id);
// The folder to unpack a copy into, of a path that was placed so: for a file, the one it is in.
std::string copyFolder(const SharedPath& path);
// By `paths`, prefixes of the host and what they are in the guest; the longest one counts.
// kUnsupported for a path that none of them has.
Placement mappedPlacement(const std::map<std::string, std::string>& paths);

struct Placements {
    Placement rootfs, binds;
};

// kUnsupported names what a guest cannot do, instead of leaving it out silently. Hooks that
// commands run themselves are no part of `spec` any more (hook_places.h).
base::Result<GuestSpec> makeGuestSpec(const spec::Spec& spec, const std::string& container_id,
                                      const Placements& places,
                                      const NamespaceTranslator& translate);

// The pid and the kind of "/proc/PID/ns/KIND"; false for other paths.
bool parseNamespacePath(const std::string& path, long& pid, std::string& kind);

}  // namespace arca::runtime
