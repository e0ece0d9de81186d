#include "runtime/record.h"

#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

namespace arca::runtime {
namespace {

using Json = nlohmann::ordered_json;
using base::Code;
using base::fail;
using base::Result;

constexpr int kVersion = 1;
constexpr const char* kStageNames[] = {"creating", "created", "running"};

Json hookList(const std::vector<spec::Hook>& hooks) {
    Json list = Json::array();
    for (const spec::Hook& hook : hooks) {
        Json entry{{"path", hook.path}, {"args", hook.args}};
        if (hook.env) entry["env"] = *hook.env;
        if (hook.timeout) entry["timeout"] = *hook.timeout;
        list.push_back(std::move(entry));
    }
    return list;
}

std::vector<spec::Hook> hookList(const Json& hooks, const char* kind) {
    std::vector<spec::Hook> list;
    const auto found = hooks.find(kind);
    if (found == hooks.end()) return list;
    for (const Json& entry : *found) {
        spec::Hook hook;
        hook.path = entry.at("path").get<std::string>();
        hook.args = entry.at("args").get<std::vector<std::string>>();
        if (entry.contains("env")) hook.env = entry.at("env").get<std::vector<std::string>>();
        if (entry.contains("timeout")) hook.timeout = entry.at("timeout").get<int32_t>();
        list.push_back(std::move(hook));
    }
    return list;
}

// Throws nlohmann's exceptions.
Record decode(const Json& json) {
    Record record;
    record.id = json.at("id").get<std::string>();
    const std::string stage = json.at("status").get<std::string>();
    bool known = false;
    for (size_t i = 0; i < std::size(kStageNames); ++i) {
        if (stage != kStageNames[i]) continue;
        record.stage = static_cast<Stage>(i);
        known = true;
    }
    if (!known) throw std::out_of_range("status " + stage);
    record.init.pid = json.at("pid").get<pid_t>();
    record.init.start_time_ticks = json.at("start_time").get<uint64_t>();
    record.bundle = json.at("bundle").get<std::string>();
    record.rootfs = json.at("rootfs").get<std::string>();
    record.created = json.at("created").get<std::string>();
    record.oci_version = json.at("ociVersion").get<std::string>();
    record.owner = json.at("owner").get<uid_t>();
    record.rootless = json.at("rootless").get<std::string>();
    record.sandbox = json.at("sandbox").get<std::string>();
    // Records of earlier versions have none: each container had its own.
    record.sandbox_id = json.value("sandbox_id", record.id);
    record.applies_labels = json.value("applies_labels", true);
    record.private_pid_namespace = json.at("private_pid_namespace").get<bool>();
    record.home_given = json.at("home_given").get<bool>();
    if (json.contains("systemd_scope")) {
        const Json& scope = json.at("systemd_scope");
        record.scope = systemd::ScopeName{scope.at("slice").get<std::string>(),
                                          scope.at("unit").get<std::string>()};
    }
    if (json.contains("annotations")) {
        record.annotations = json.at("annotations").get<spec::Annotations>();
    }
    if (json.contains("hooks")) {
        const Json& hooks = json.at("hooks");
        record.hooks.startContainer = hookList(hooks, "startContainer");
        record.hooks.poststart = hookList(hooks, "poststart");
        record.hooks.poststop = hookList(hooks, "poststop");
    }
    return record;
}

}  // namespace

std::string writeRecord(const Record& record) {
    Json json{{"version", kVersion},
              {"id", record.id},
              {"status", kStageNames[static_cast<size_t>(record.stage)]},
              {"pid", record.init.pid},
              {"start_time", record.init.start_time_ticks},
              {"bundle", record.bundle},
              {"rootfs", record.rootfs},
              {"created", record.created},
              {"ociVersion", record.oci_version},
              {"owner", record.owner},
              {"rootless", record.rootless},
              {"sandbox", record.sandbox},
              {"sandbox_id", record.sandbox_id},
              {"applies_labels", record.applies_labels},
              {"private_pid_namespace", record.private_pid_namespace},
              {"home_given", record.home_given}};
    if (record.scope) {
        json["systemd_scope"] = {{"slice", record.scope->slice}, {"unit", record.scope->unit}};
    }
    if (!record.annotations.empty()) json["annotations"] = record.annotations;
    Json hooks;
    const auto add = [&](const char* kind, const std::vector<spec::Hook>& list) {
        if (!list.empty()) hooks[kind] = hookList(list);
    };
    add("startContainer", record.hooks.startContainer);
    add("poststart", record.hooks.poststart);
    add("poststop", record.hooks.poststop);
    if (!hooks.empty()) json["hooks"] = std::move(hooks);
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Record> parseRecord(std::string_view text) {
    try {
        const Json json = Json::parse(text);
        if (json.at("version").get<int>() != kVersion) {
            return fail(Code::kInternal, "state.json: written by another version");
        }
        return decode(json);
    } catch (const std::exception& error) {
        return fail(Code::kInternal, std::string("state.json: ") + error.what());
    }
}

std::string timestamp(int64_t seconds, int64_t nanoseconds) {
    // By hand: gmtime(3) reads the time zone's file first, which UTC has no use for.
    const std::chrono::sys_seconds time{std::chrono::seconds(seconds)};
    const auto day = std::chrono::floor<std::chrono::days>(time);
    const std::chrono::year_month_day date(day);
    const std::chrono::hh_mm_ss clock(time - day);
    char text[64];
    (void)std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02ld:%02ld:%02ld",
                        static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                        static_cast<unsigned>(date.day()), clock.hours().count(),
                        clock.minutes().count(), clock.seconds().count());
    std::string out = text;
    if (nanoseconds != 0) {
        std::string digits = std::to_string(nanoseconds);
        digits.insert(0, 9 - digits.size(), '0');
        digits.resize(digits.find_last_not_of('0') + 1);
        out += "." + digits;
    }
    return out + "Z";
}

std::string timestampNow() {
    timespec now{};
    (void)::clock_gettime(CLOCK_REALTIME, &now);
    return timestamp(now.tv_sec, now.tv_nsec);
}

}  // namespace arca::runtime
