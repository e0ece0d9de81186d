// The `linux` object. Source: runtime-spec config-linux.md.
#include <array>
#include <climits>

#include "spec/sysctl.h"
#include "spec/value_rules.h"

namespace arca::spec {
namespace {

constexpr uint32_t kMaxNumaNode = 1023;  // the kernel's largest MAX_NUMNODES, less one

// The files of /proc/sys that belong to a namespace. Source: what runc lets through.
constexpr std::array<std::string_view, 8> kIpcSysctls = {
    "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
    "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced"};

// Empty when `key` may be set in `spec`'s namespaces, else the reason.
std::string sysctlComplaint(std::string_view key, const std::string& path, const Linux& spec) {
    const auto has = [&](NamespaceType type) { return spec.findNamespace(type) != nullptr; };
    NamespaceType needed = NamespaceType::kPid;
    if (names::contains(kIpcSysctls, path) || path.starts_with("fs/mqueue/")) {
        needed = NamespaceType::kIpc;
    } else if (path.starts_with("net/")) {
        needed = NamespaceType::kNetwork;
    } else if (path.starts_with("user/")) {
        needed = NamespaceType::kUser;
    } else if (path == "kernel/domainname") {
        needed = NamespaceType::kUts;
    } else if (path == "kernel/hostname") {
        return "must be set by the property hostname";
    }
    if (needed != NamespaceType::kPid && has(needed)) return {};
    return "sysctl " + shown(key) + " is not in a separate kernel namespace";
}

}  // namespace

static void decode(JsonValue value, Namespace& target) {
    const JsonObject object(value);
    std::string type;
    object.require("type", type);
    const auto known =
        std::find_if(names::kNamespaces.begin(), names::kNamespaces.end(),
                     [&](const names::NamespaceName& entry) { return entry.name == type; });
    if (known == names::kNamespaces.end()) {
        object.fail("type", shown(type) + " is no namespace type");
        return;
    }
    target.type = known->type;
    getAbsolutePath(object, "path", target.path);
}

static void getNamespaces(const JsonObject& object, Linux& target) {
    const JsonValue list = object.find("namespaces");
    if (!list.exists() || !list.expect(JsonType::kArray)) return;
    list.forEach([&](JsonValue element) {
        Namespace ns;
        decode(element, ns);
        if (!element.reader()->failed() && target.findNamespace(ns.type) != nullptr) {
            const JsonObject entry(element);
            entry.fail("type", std::string(entry.find("type").text()) + " is given twice");
        }
        target.namespaces.push_back(std::move(ns));
    });
}

// The permission bits of `fileMode`. Some clients pass st_mode whole; its type bits may be there
// when they say the same as `type`.
static void getFileMode(const JsonObject& object, Device& target) {
    constexpr uint32_t kTypeBits = 0170000;
    constexpr uint32_t kPermissionBits = 07777;
    if (!object.get("fileMode", target.fileMode) || !target.fileMode) return;
    uint32_t type_bits = 0020000;  // S_IFCHR
    if (target.type == 'b') type_bits = 0060000;
    if (target.type == 'p') type_bits = 0010000;
    const uint32_t given = *target.fileMode & kTypeBits;
    if ((*target.fileMode & ~(kTypeBits | kPermissionBits)) != 0 ||
        (given != 0 && given != type_bits)) {
        object.fail("fileMode",
                    std::to_string(*target.fileMode) + " has more than permission bits");
    }
    target.fileMode = *target.fileMode & kPermissionBits;
}

static void decode(JsonValue value, Device& target) {
    const JsonObject object(value);
    std::string type;
    object.require("type", type);
    if (type != "c" && type != "b" && type != "u" && type != "p") {
        object.fail("type", shown(type) + " is no device type; c, b, u and p are");
        return;
    }
    target.type = type.front();
    requireText(object, "path", target.path);
    getAbsolutePath(object, "path", target.path);
    // What fits the kernel's dev_t; mknod(2) would silently make another device of larger numbers.
    constexpr int64_t kMaxMajor = (1 << 12U) - 1;
    constexpr int64_t kMaxMinor = (1 << 20U) - 1;
    if (target.type != 'p' && !object.find("major").exists()) object.missing("major");
    if (target.type != 'p' && !object.find("minor").exists()) object.missing("minor");
    getBetween(object, "major", target.major, 0, kMaxMajor);
    getBetween(object, "minor", target.minor, 0, kMaxMinor);
    getFileMode(object, target);
    getId(object, "uid", target.uid);
    getId(object, "gid", target.gid);
}

static void decode(JsonValue value, NetDevice& target) {
    const JsonObject object(value);
    if (!isInterfaceName(value.key())) {
        value.fail(shown(value.key()) + " is no network interface name");
    }
    if (object.get("name", target.name) && !target.name.empty() && !isInterfaceName(target.name)) {
        object.fail("name", shown(target.name) + " is no network interface name");
    }
}

static void decode(JsonValue value, TimeOffset& target) {
    const JsonObject object(value);
    if (value.key() != "monotonic" && value.key() != "boottime") {
        value.fail("is no clock; monotonic and boottime are");
    }
    object.get("secs", target.secs);
    getBetween(object, "nanosecs", target.nanosecs, 0, 999999999);
}

static void decode(JsonValue value, Personality& target) {
    const JsonObject object(value);
    requireOneOf(object, "domain", target.domain, names::kPersonalityDomains,
                 "is no execution domain");
    object.get("flags", target.flags);
    if (!target.flags.empty()) object.fail("flags", "no flag is defined");
}

static void decode(JsonValue value, IntelRdt& target) {
    const JsonObject object(value);
    if (object.get("closID", target.closID)) {
        const std::string& id = *target.closID;
        // It becomes the name of a directory in resctrl; "/" is the root of that.
        const bool path =
            id == "." || id == ".." || (id != "/" && id.find('/') != std::string::npos);
        if (path || id.find('\n') != std::string::npos || id.size() > NAME_MAX) {
            object.fail("closID", shown(id) + " is no directory name");
        }
        if (id.empty()) target.closID.reset();
    }
    // Its bandwidth lines give way to memBwSchema, so there can be several.
    object.get("l3CacheSchema", target.l3CacheSchema);
    if (target.l3CacheSchema == "") target.l3CacheSchema.reset();
    if (object.get("memBwSchema", target.memBwSchema)) {
        if (target.memBwSchema->empty()) target.memBwSchema.reset();
        if (target.memBwSchema && target.memBwSchema->find('\n') != std::string::npos) {
            object.fail("memBwSchema", "must be one line");
        }
    }
    object.get("schemata", target.schemata);
    for (size_t i = 0; i < target.schemata.size() && !object.failed(); ++i) {
        if (target.schemata[i].find('\n') == std::string::npos) continue;
        object.find("schemata").element(i).fail("must be one line");
    }
    object.get("enableCMT", target.enableCMT);
    object.get("enableMBM", target.enableMBM);
    object.get("enableMonitoring", target.enableMonitoring);
}

// Source: config-linux.md, "Memory policy", and set_mempolicy(2).
static void decode(JsonValue value, MemoryPolicy& target) {
    const JsonObject object(value);
    requireOneOf(object, "mode", target.mode, names::kMemoryPolicyModes, "is no memory policy");
    object.get("nodes", target.nodes);
    getListOf(object, "flags", target.flags, names::kMemoryPolicyFlags, "is no memory policy flag");
    if (object.failed()) return;
    const bool none = target.mode == "MPOL_DEFAULT" || target.mode == "MPOL_LOCAL";
    if (target.nodes.empty()) {
        if (!none && target.mode != "MPOL_PREFERRED") {
            object.fail("nodes", "is required with " + target.mode);
        }
    } else if (none) {
        object.fail("nodes", "must be empty with " + target.mode);
    } else {
        checkNumberList(object, "nodes", target.nodes, kMaxNumaNode);
    }
    const auto has = [&](std::string_view flag) {
        return std::find(target.flags.begin(), target.flags.end(), flag) != target.flags.end();
    };
    if (has("MPOL_F_RELATIVE_NODES") && has("MPOL_F_STATIC_NODES")) {
        object.fail("flags", "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other");
    }
    if (none && !target.flags.empty()) object.fail("flags", "must be empty with " + target.mode);
}

static void checkSysctls(const JsonObject& object, const Linux& spec, Source source) {
    const JsonValue list = object.find("sysctl");
    if (!list.exists() || list.type() != JsonType::kObject) return;
    list.forEach([&](JsonValue member) {
        const std::optional<std::string> path = sysctlPath(member.key());
        if (!path) {
            member.fail(shown(member.key()) + " is no sysctl key");
            return;
        }
        if (source != Source::kBundle) return;
        const std::string complaint = sysctlComplaint(member.key(), *path, spec);
        if (!complaint.empty()) member.fail(complaint);
    });
}

// What may only be set in a namespace of one's own. On the wire an absent list of namespaces does
// not mean "the runtime's own", so there these are the agent's to check.
static void checkNamespaceNeeds(const JsonObject& object, const Linux& spec) {
    const auto needs = [&](std::string_view name, NamespaceType type, std::string_view words) {
        if (spec.findNamespace(type) != nullptr) return;
        object.fail(name, "needs " + std::string(words));
    };
    if (!spec.maskedPaths.empty()) needs("maskedPaths", NamespaceType::kMount, "a mount namespace");
    if (!spec.readonlyPaths.empty()) {
        needs("readonlyPaths", NamespaceType::kMount, "a mount namespace");
    }
    if (!spec.netDevices.empty()) {
        needs("netDevices", NamespaceType::kNetwork, "a network namespace");
    }
}

static void checkMappings(const JsonObject& object, const Linux& spec) {
    if (spec.findNamespace(NamespaceType::kUser) != nullptr) return;
    if (!spec.uidMappings.empty()) object.fail("uidMappings", "needs a user namespace");
    if (!spec.gidMappings.empty()) object.fail("gidMappings", "needs a user namespace");
}

static void checkTimeOffsets(const JsonObject& object, const Linux& spec) {
    if (spec.timeOffsets.empty()) return;
    const Namespace* time = spec.findNamespace(NamespaceType::kTime);
    if (time == nullptr) {
        object.fail("timeOffsets", "needs a time namespace");
    } else if (!time->path.empty()) {
        object.fail("timeOffsets", "cannot be set for a time namespace that is joined");
    }
}

void decode(JsonValue value, Linux& target) {
    const JsonObject object(value);
    getNamespaces(object, target);
    getIdMappings(object, "uidMappings", target.uidMappings);
    getIdMappings(object, "gidMappings", target.gidMappings);
    checkMappings(object, target);
    object.get("timeOffsets", target.timeOffsets);
    checkTimeOffsets(object, target);
    checkSysctls(object, target, value.reader()->source());
    object.get("sysctl", target.sysctl);
    object.get("resources", target.resources);
    object.get("cgroupsPath", target.cgroupsPath);
    object.get("devices", target.devices);
    object.get("netDevices", target.netDevices);
    const JsonValue seccomp = object.find("seccomp");
    if (seccomp.exists()) decode(seccomp, target.seccomp);
    getOneOf(object, "rootfsPropagation", target.rootfsPropagation, names::kRootfsPropagations,
             "is no mount propagation");
    getAbsolutePaths(object, "maskedPaths", target.maskedPaths);
    getAbsolutePaths(object, "readonlyPaths", target.readonlyPaths);
    object.get("mountLabel", target.mountLabel);
    object.get("intelRdt", target.intelRdt);
    object.get("personality", target.personality);
    object.get("memoryPolicy", target.memoryPolicy);
    if (value.reader()->source() == Source::kBundle) checkNamespaceNeeds(object, target);
}

}  // namespace arca::spec
