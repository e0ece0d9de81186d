#include "runtime/drivers/strict_spec.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "spec/write.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 9> kFeatures{
    "seccomp",   "hooks",          "devices",
    "network",   "user-namespace", "propagation",
    "resources", "labels",         kFileAttributesFeature};

// What Docker and runc's `spec` always write: a guest's devtmpfs has these and no more rights.
bool isDefaultDeviceRule(const spec::DeviceRule& rule) {
    return !rule.allow && rule.type == 'a' && !rule.major && !rule.minor;
}

struct Use {
    std::string_view feature;
    std::string where;
};

// What of `spec` the guest's agent would not do.
std::vector<Use> ignoredUses(const spec::Spec& spec) {
    std::vector<Use> uses;
    const auto add = [&](bool used, std::string_view feature, std::string where) {
        if (used) uses.push_back({feature, std::move(where)});
    };
    const spec::Linux& linux_part = spec.linux;
    add(linux_part.seccomp.has_value(), "seccomp", "linux.seccomp");
    for (const char* stage : spec::Hooks::kStages) {
        add(!spec.hooks.find(stage)->empty(), "hooks", std::string("hooks.") + stage);
    }
    add(!linux_part.devices.empty(), "devices", "linux.devices");
    add(linux_part.findNamespace(spec::NamespaceType::kNetwork) != nullptr, "network",
        "a network namespace");
    add(linux_part.findNamespace(spec::NamespaceType::kUser) != nullptr, "user-namespace",
        "a user namespace");
    add(linux_part.findNamespace(spec::NamespaceType::kTime) != nullptr, "user-namespace",
        "a time namespace");
    add(!linux_part.rootfsPropagation.empty(), "propagation", "linux.rootfsPropagation");
    add(!linux_part.mountLabel.empty(), "labels", "linux.mountLabel");
    if (spec.process) {
        add(!spec.process->apparmorProfile.empty(), "labels", "process.apparmorProfile");
        add(!spec.process->selinuxLabel.empty(), "labels", "process.selinuxLabel");
    }
    if (linux_part.resources) {
        const spec::Resources& resources = *linux_part.resources;
        const bool rules = std::any_of(resources.devices.begin(), resources.devices.end(),
                                       [](const auto& rule) { return !isDefaultDeviceRule(rule); });
        add(rules, "devices", "linux.resources.devices");
        const bool more =
            resources.blockIO || !resources.hugepageLimits.empty() || resources.network ||
            !resources.rdma.empty() || !resources.unified.empty() ||
            (resources.memory && (resources.memory->swap || resources.memory->reservation)) ||
            (resources.cpu && (resources.cpu->shares || !resources.cpu->cpus.empty() ||
                               !resources.cpu->mems.empty()));
        add(more, "resources", "linux.resources");
    }
    return uses;
}

bool isPropagation(std::string_view word) {
    constexpr std::array<std::string_view, 9> kWords{"private",    "rprivate",    "shared",
                                                     "rshared",    "slave",       "rslave",
                                                     "unbindable", "runbindable", "defaults"};
    return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

// Its option table knows no propagation and hands what it does not know to the file system; and its
// /dev must be a devtmpfs.
void plainMounts(spec::Spec& spec) {
    for (spec::Mount& mount : spec.mounts) {
        std::erase_if(mount.options, isPropagation);
        if (mount.destination == "/dev" && mount.type == "tmpfs") {
            mount.type = "devtmpfs";
            mount.source = "none";
            mount.options = {"nosuid", "mode=755"};
        }
        if (mount.type == "cgroup") {
            mount.type = "cgroup2";
            mount.source = "none";
        }
    }
}

void plainNamespaces(spec::Spec& spec) {
    auto& list = spec.linux.namespaces;
    std::erase_if(list, [](const spec::Namespace& ns) {
        return ns.type == spec::NamespaceType::kTime || ns.type == spec::NamespaceType::kNetwork ||
               ns.type == spec::NamespaceType::kUser;
    });
    // Without these the container would work on the guest's own.
    for (const auto type : {spec::NamespaceType::kMount, spec::NamespaceType::kPid}) {
        if (spec.linux.findNamespace(type) == nullptr) list.push_back({type, {}});
    }
}

// Members that must be there though the specification lets them be absent.
void completeJson(Json& json) {
    if (!json.contains("ociVersion")) json["ociVersion"] = "";
    Json& linux_part = json["linux"];
    if (linux_part.is_null()) linux_part = Json::object();
    for (Json& ns : linux_part["namespaces"]) {
        if (!ns.contains("path")) ns["path"] = "";
    }
    if (!linux_part.contains("resources")) return;
    Json& resources = linux_part["resources"];
    for (const char* list : {"devices", "hugepageLimits"}) {
        if (!resources.contains(list)) resources[list] = Json::array();
    }
    for (Json& rule : resources["devices"]) {
        if (!rule.contains("type")) rule["type"] = "a";
    }
    if (resources.contains("cpu")) {
        for (const char* text : {"cpus", "mems"}) {
            if (!resources["cpu"].contains(text)) resources["cpu"][text] = "";
        }
    }
}

}  // namespace

bool isIgnorableFeature(std::string_view name) {
    return std::find(kFeatures.begin(), kFeatures.end(), name) != kFeatures.end();
}

Result<std::string> writeStrictSpec(const spec::Spec& given,
                                    const std::vector<std::string>& ignore) {
    for (const Use& use : ignoredUses(given)) {
        if (std::find(ignore.begin(), ignore.end(), use.feature) != ignore.end()) continue;
        return fail(Code::kUnsupported,
                    use.where +
                        ": this guest would silently leave it out (connect.ignore in the "
                        "configuration can allow that: \"" +
                        std::string(use.feature) + "\")");
    }
    spec::Spec plain = given;
    plain.hooks = {};
    plain.annotations.clear();
    plain.linux.seccomp.reset();
    plain.linux.devices.clear();
    plain.linux.rootfsPropagation.clear();
    plain.linux.timeOffsets.clear();
    plain.linux.personality.reset();
    plain.linux.memoryPolicy.reset();
    plain.has_linux = true;
    if (plain.linux.resources) {
        spec::Resources& resources = *plain.linux.resources;
        resources.blockIO.reset();
        resources.hugepageLimits.clear();
        resources.network.reset();
        resources.rdma.clear();
        resources.unified.clear();
    }
    plainMounts(plain);
    plainNamespaces(plain);
    Json json = Json::parse(spec::writeSpec(plain), nullptr, false);
    if (json.is_discarded()) return fail(Code::kInternal, "cannot write the configuration");
    completeJson(json);
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace arca::runtime
