// The `linux.seccomp` object. Source: runtime-spec config-linux.md, "Seccomp".
#include "spec/value_rules.h"

namespace arca::spec {
namespace {

constexpr char kErrno[] = "SCMP_ACT_ERRNO";
constexpr char kTrace[] = "SCMP_ACT_TRACE";
constexpr char kNotify[] = "SCMP_ACT_NOTIFY";

// An errno belongs to the two actions that return a number, and must be one that they can return.
void checkErrno(const JsonObject& object, std::string_view name, std::optional<uint32_t> number,
                std::string_view action) {
    constexpr uint32_t kMaxErrno = 4095;  // above it the kernel takes 4095
    constexpr uint32_t kMaxData = 65535;  // SECCOMP_RET_DATA
    if (!number) return;
    if (action != kErrno && action != kTrace) {
        object.fail(name, "is only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not " + shown(action));
        return;
    }
    const uint32_t max = action == kErrno ? kMaxErrno : kMaxData;
    if (*number <= max) return;
    object.fail(name, "must be at most " + std::to_string(max) + ", is " + std::to_string(*number));
}

}  // namespace

static void decode(JsonValue value, SeccompArg& target) {
    const JsonObject object(value);
    if (!object.find("index").exists()) object.missing("index");
    getBetween(object, "index", target.index, 0, 5);
    object.require("value", target.value);
    object.get("valueTwo", target.valueTwo);
    requireOneOf(object, "op", target.op, names::kSeccompOperators, "is no comparison operator");
}

static void decode(JsonValue value, SeccompSyscall& target) {
    const JsonObject object(value);
    object.require("names", target.names);
    if (target.names.empty()) object.fail("names", "must have at least one entry");
    for (size_t i = 0; i < target.names.size() && !object.failed(); ++i) {
        if (target.names[i].empty()) object.find("names").element(i).fail("must not be empty");
    }
    requireOneOf(object, "action", target.action, names::kSeccompActions, "is no seccomp action");
    object.get("errnoRet", target.errnoRet);
    checkErrno(object, "errnoRet", target.errnoRet, target.action);
    object.get("args", target.args);
    // The descriptor of the listener is handed over with write(2) itself still to come.
    if (target.action == kNotify &&
        std::find(target.names.begin(), target.names.end(), "write") != target.names.end()) {
        object.fail("action", "SCMP_ACT_NOTIFY cannot be used for the write system call");
    }
}

static void checkListener(const JsonObject& object, const Seccomp& seccomp) {
    if (seccomp.defaultAction == kNotify) {
        object.fail("defaultAction", "SCMP_ACT_NOTIFY cannot be the default action");
    }
    if (!seccomp.listenerPath.empty()) return;
    if (seccomp.notifies()) object.fail("listenerPath", "is required with SCMP_ACT_NOTIFY");
    if (!seccomp.listenerMetadata.empty()) {
        object.fail("listenerMetadata", "must not be set without listenerPath");
    }
}

static void decode(JsonValue value, Seccomp& target) {
    const JsonObject object(value);
    requireOneOf(object, "defaultAction", target.defaultAction, names::kSeccompActions,
                 "is no seccomp action");
    object.get("defaultErrnoRet", target.defaultErrnoRet);
    checkErrno(object, "defaultErrnoRet", target.defaultErrnoRet, target.defaultAction);
    getListOf(object, "architectures", target.architectures, names::kSeccompArchs,
              "is no seccomp architecture");
    if (object.find("flags").exists()) {
        getListOf(object, "flags", target.flags.emplace(), names::kSeccompFlags,
                  "is no seccomp flag");
    }
    getAbsolutePath(object, "listenerPath", target.listenerPath);
    object.get("listenerMetadata", target.listenerMetadata);
    object.get("syscalls", target.syscalls);
    checkListener(object, target);
}

bool Seccomp::notifies() const {
    return std::any_of(syscalls.begin(), syscalls.end(),
                       [](const SeccompSyscall& rule) { return rule.action == kNotify; });
}

void decode(JsonValue value, std::optional<Seccomp>& target) {
    const JsonObject object(value);
    // Neither a default action nor a rule: no seccomp, as runc reads it.
    const JsonValue action = object.find("defaultAction");
    const JsonValue rules = object.find("syscalls");
    const bool no_action =
        !action.exists() || (action.expect(JsonType::kString) && action.text().empty());
    bool no_rules = true;
    if (rules.exists() && rules.expect(JsonType::kArray)) {
        rules.forEach([&](JsonValue) { no_rules = false; });
    }
    target.reset();
    if (no_action && no_rules) return;
    decode(value, target.emplace());
}

}  // namespace arca::spec
