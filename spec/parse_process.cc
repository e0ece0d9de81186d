// The `process` object. Source: runtime-spec config.md, "Process".
#include "spec/value_rules.h"

namespace arca::spec {

constexpr uint32_t kMaxCpu = 8191;  // the largest NR_CPUS that Linux can be built with, less one

static void decode(JsonValue value, ConsoleSize& target) {
    const JsonObject object(value);
    object.require("height", target.height);
    object.require("width", target.width);
}

static void decode(JsonValue value, User& target) {
    const JsonObject object(value);
    getId(object, "uid", target.uid);
    getId(object, "gid", target.gid);
    getBetween(object, "umask", target.umask, 0, 0777);
    if (object.get("additionalGids", target.additionalGids)) {
        for (size_t i = 0; i < target.additionalGids.size() && !object.failed(); ++i) {
            if (target.additionalGids[i] != UINT32_MAX) continue;
            object.find("additionalGids").element(i).fail("must be below 2^32-1");
        }
    }
    if (value.reader()->source() == Source::kWire) object.get("username", target.username);
}

static void decode(JsonValue value, Capabilities& target) {
    const JsonObject object(value);
    object.get("bounding", target.bounding);
    object.get("effective", target.effective);
    object.get("inheritable", target.inheritable);
    object.get("permitted", target.permitted);
    object.get("ambient", target.ambient);
}

static void decode(JsonValue value, Rlimit& target) {
    const JsonObject object(value);
    object.require("type", target.type);
    object.require("soft", target.soft);
    object.require("hard", target.hard);
    if (object.failed()) return;
    const auto known =
        std::find_if(names::kRlimits.begin(), names::kRlimits.end(),
                     [&](const names::RlimitName& entry) { return entry.name == target.type; });
    if (known == names::kRlimits.end()) {
        object.fail("type", shown(target.type) + " is no resource limit");
        return;
    }
    target.resource = known->resource;
    if (target.soft > target.hard) {
        object.fail("soft", std::to_string(target.soft) + " is above the hard limit of " +
                                std::to_string(target.hard));
    }
}

static void getRlimits(const JsonObject& process, std::vector<Rlimit>& target) {
    const JsonValue list = process.find("rlimits");
    if (!list.exists() || !list.expect(JsonType::kArray)) return;
    list.forEach([&](JsonValue element) {
        Rlimit limit;
        decode(element, limit);
        for (const Rlimit& other : target) {
            if (other.resource != limit.resource || element.reader()->failed()) continue;
            JsonObject(element).fail("type", limit.type + " is given twice");
        }
        target.push_back(std::move(limit));
    });
}

static void checkDeadline(const JsonObject& object, const Scheduler& scheduler) {
    constexpr uint64_t kShortestRuntime = 1024;  // ns; the kernel's smallest
    if (scheduler.policy != "SCHED_DEADLINE") {
        if (scheduler.runtime != 0) object.fail("runtime", "is only for SCHED_DEADLINE");
        if (scheduler.deadline != 0) object.fail("deadline", "is only for SCHED_DEADLINE");
        if (scheduler.period != 0) object.fail("period", "is only for SCHED_DEADLINE");
        return;
    }
    if (scheduler.runtime < kShortestRuntime) object.fail("runtime", "must be at least 1024 ns");
    if (scheduler.deadline < scheduler.runtime) object.fail("deadline", "is below the runtime");
    if (scheduler.period != 0 && scheduler.period < scheduler.deadline) {
        object.fail("period", "is below the deadline");
    }
}

// Source: config.md, `scheduler`, and sched_setattr(2) for what the kernel would refuse later.
static void decode(JsonValue value, Scheduler& target) {
    const JsonObject object(value);
    requireOneOf(object, "policy", target.policy, names::kSchedulerPolicies,
                 "is no scheduling policy");
    getBetween(object, "nice", target.nice, -20, 19);
    object.get("priority", target.priority);
    getListOf(object, "flags", target.flags, names::kSchedulerFlags, "is no scheduler flag");
    object.get("runtime", target.runtime);
    object.get("deadline", target.deadline);
    object.get("period", target.period);
    if (object.failed()) return;
    if (target.policy == "SCHED_FIFO" || target.policy == "SCHED_RR") {
        if (target.priority < 1 || target.priority > 99) {
            object.fail("priority", "must be 1..99 for " + target.policy + ", is " +
                                        std::to_string(target.priority));
        }
    } else if (target.priority != 0) {
        object.fail("priority", "is only for SCHED_FIFO and SCHED_RR");
    }
    checkDeadline(object, target);
}

static void decode(JsonValue value, IoPriority& target) {
    const JsonObject object(value);
    requireOneOf(object, "class", target.class_name, names::kIoPriorityClasses,
                 "is no I/O priority class");
    getBetween(object, "priority", target.priority, 0, 7);
}

static void decode(JsonValue value, ExecCpuAffinity& target) {
    const JsonObject object(value);
    object.get("initial", target.initial);
    object.get("final", target.final_list);
    if (!target.initial.empty()) checkNumberList(object, "initial", target.initial, kMaxCpu);
    if (!target.final_list.empty()) checkNumberList(object, "final", target.final_list, kMaxCpu);
}

static void getWorkingDirectory(const JsonObject& object, Source source, std::string& target) {
    object.get("cwd", target);
    if (target.empty() && source == Source::kWire) target = "/";
    if (target.empty()) object.missing("cwd");
    if (!isAbsolute(target)) object.fail("cwd", "must be an absolute path, is " + shown(target));
}

static void checkArgs(const JsonObject& object, const std::vector<std::string>& args) {
    if (args.empty()) {
        object.fail("args", "must have at least one entry");
    } else if (args.front().empty() && !object.failed()) {
        object.find("args").element(0).fail("must not be empty");
    }
}

void decode(JsonValue value, Process& target) {
    const JsonObject object(value);
    const Source source = value.reader()->source();
    object.get("terminal", target.terminal);
    object.get("consoleSize", target.consoleSize);
    // The window size of a terminal has 16 bits; without a terminal it must be ignored.
    if (target.terminal && target.consoleSize) {
        const uint32_t larger = std::max(target.consoleSize->height, target.consoleSize->width);
        if (larger > UINT16_MAX) object.fail("consoleSize", "must be at most 65535 each way");
    }
    object.get("user", target.user);
    object.get("args", target.args);
    if (source == Source::kBundle) checkArgs(object, target.args);
    object.get("env", target.env);
    checkEnvironment(object.find("env"));
    getWorkingDirectory(object, source, target.cwd);
    object.get("capabilities", target.capabilities);
    getRlimits(object, target.rlimits);
    object.get("noNewPrivileges", target.noNewPrivileges);
    object.get("apparmorProfile", target.apparmorProfile);
    object.get("selinuxLabel", target.selinuxLabel);
    getBetween(object, "oomScoreAdj", target.oomScoreAdj, -1000, 1000);
    object.get("scheduler", target.scheduler);
    object.get("ioPriority", target.ioPriority);
    object.get("execCPUAffinity", target.execCPUAffinity);
}

}  // namespace arca::spec
