#include "spec/features.h"

#include <seccomp.h>

#include <algorithm>

#include "spec/json_writer.h"
#include "spec/known_names.h"
#include "spec/version.h"

namespace arca::spec {
namespace {

void putList(JsonWriter& out, std::string_view name, names::List list) {
    out.name(name);
    out.beginArray();
    for (const std::string_view entry : list) out.string(entry);
    out.endArray();
}

void putEnabled(JsonWriter& out, std::string_view name, bool enabled) {
    out.name(name);
    out.beginObject();
    put(out, "enabled", enabled);
    out.endObject();
}

// The architectures that the seccomp library can make filters for.
std::vector<std::string_view> seccompArchs() {
    std::vector<std::string_view> out;
    for (const std::string_view name : names::kSeccompArchs) {
#ifndef SCMP_ARCH_LOONGARCH64
        if (name == "SCMP_ARCH_LOONGARCH64") continue;
#endif
#ifndef SCMP_ARCH_M68K
        if (name == "SCMP_ARCH_M68K") continue;
#endif
#ifndef SCMP_ARCH_SH
        if (name == "SCMP_ARCH_SH" || name == "SCMP_ARCH_SHEB") continue;
#endif
        out.push_back(name);
    }
    return out;
}

void putSeccomp(JsonWriter& out) {
    out.name("seccomp");
    out.beginObject();
    put(out, "enabled", true);
    putList(out, "actions", names::kSeccompActions);
    putList(out, "operators", names::kSeccompOperators);
    putList(out, "archs", seccompArchs());
    putList(out, "knownFlags", names::kSeccompFlags);
    putList(out, "supportedFlags", names::kSeccompFlags);
    out.endObject();
}

void putLinux(JsonWriter& out) {
    out.name("linux");
    out.beginObject();
    out.name("namespaces");
    out.beginArray();
    for (const names::NamespaceName& ns : names::kNamespaces) out.string(ns.name);
    out.endArray();
    putList(out, "capabilities", names::kCapabilities);
    out.name("cgroup");
    out.beginObject();
    put(out, "v1", true);
    put(out, "v2", true);
    put(out, "systemd", true);
    put(out, "systemdUser", false);
    put(out, "rdma", true);
    out.endObject();
    putSeccomp(out);
    putEnabled(out, "apparmor", true);
    putEnabled(out, "selinux", true);
    out.name("intelRdt");
    out.beginObject();
    put(out, "enabled", true);
    put(out, "schemata", true);
    put(out, "monitoring", true);
    out.endObject();
    out.name("memoryPolicy");
    out.beginObject();
    putList(out, "modes", names::kMemoryPolicyModes);
    putList(out, "flags", names::kMemoryPolicyFlags);
    out.endObject();
    out.name("mountExtensions");
    out.beginObject();
    putEnabled(out, "idmap", true);
    out.endObject();
    putEnabled(out, "netDevices", true);
    out.endObject();
}

void putAnnotations(JsonWriter& out) {
    const std::string seccomp_version = std::to_string(SCMP_VER_MAJOR) + "." +
                                        std::to_string(SCMP_VER_MINOR) + "." +
                                        std::to_string(SCMP_VER_MICRO);
    out.name("annotations");
    out.beginObject();
    put(out, "dev.arca.runtime.version", std::string(kProjectVersion));
    put(out, "io.github.seccomp.libseccomp.version", seccomp_version);
    out.endObject();
}

}  // namespace

const std::vector<std::string>& mountOptionNames() {
    static const std::vector<std::string> kNames = [] {
        std::vector<std::string> all = {"async",         "atime",        "bind",
                                        "defaults",      "dev",          "diratime",
                                        "dirsync",       "exec",         "idmap",
                                        "iversion",      "lazytime",     "loud",
                                        "mand",          "noatime",      "nodev",
                                        "nodiratime",    "noexec",       "noiversion",
                                        "nolazytime",    "nomand",       "norelatime",
                                        "nostrictatime", "nosuid",       "nosymfollow",
                                        "private",       "ratime",       "rbind",
                                        "rdev",          "rdiratime",    "relatime",
                                        "remount",       "rexec",        "ridmap",
                                        "rnoatime",      "rnodev",       "rnodiratime",
                                        "rnoexec",       "rnorelatime",  "rnostrictatime",
                                        "rnosuid",       "rnosymfollow", "ro",
                                        "rprivate",      "rrelatime",    "rro",
                                        "rrw",           "rshared",      "rslave",
                                        "rstrictatime",  "rsuid",        "rsymfollow",
                                        "runbindable",   "rw",           "shared",
                                        "silent",        "slave",        "strictatime",
                                        "suid",          "symfollow",    "sync",
                                        "tmpcopyup",     "unbindable"};
        std::sort(all.begin(), all.end());
        return all;
    }();
    return kNames;
}

std::string featuresJson() {
    constexpr std::array<std::string_view, 6> kHooks = {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};
    constexpr std::array<std::string_view, 3> kUnsafeAnnotations = {
        "bundle", "org.systemd.property.", "dev.arca."};
    JsonWriter out(JsonUtf8::kStrict);
    out.beginObject();
    put(out, "ociVersionMin", std::string(kOciVersionMin));
    put(out, "ociVersionMax", std::string(kOciVersionMax));
    putList(out, "hooks", kHooks);
    put(out, "mountOptions", mountOptionNames());
    putLinux(out);
    putAnnotations(out);
    putList(out, "potentiallyUnsafeConfigAnnotations", kUnsafeAnnotations);
    out.endObject();
    return indentJson(out.take(), "    ");
}

}  // namespace arca::spec
