#include "vminitd/record.h"

#include <fcntl.h>

#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "vminitd/cgroup_record.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using Json = nlohmann::json;

namespace {

constexpr int kFormat = 1;
constexpr size_t kLongestPlainStem = 64;
constexpr size_t kStemPrefix = 40;

Json toJson(const ProcessRecord& record) {
    Json json = {{"format", kFormat},
                 {"id", record.id},
                 {"status", record.created ? "created" : "creating"},
                 {"pid", record.identity.pid},
                 {"start_time", record.identity.start_time_ticks},
                 {"terminal", record.terminal}};
    if (record.exit_code) {
        json["exit_code"] = *record.exit_code;
        json["exited_at"] = record.exited_at_ns;
    }
    return json;
}

ProcessRecord fromJson(const Json& json) {
    if (json.at("format").get<int>() != kFormat) throw std::runtime_error("unknown format");
    ProcessRecord record;
    record.id = json.at("id").get<std::string>();
    record.created = json.at("status").get<std::string>() == "created";
    record.identity.pid = json.at("pid").get<pid_t>();
    record.identity.start_time_ticks = json.at("start_time").get<uint64_t>();
    record.terminal = json.at("terminal").get<bool>();
    if (json.contains("exit_code")) {
        record.exit_code = json.at("exit_code").get<int>();
        record.exited_at_ns = json.at("exited_at").get<int64_t>();
    }
    return record;
}

// Runs `read`, turning what the JSON library throws into an Error.
template <typename T, typename F>
Result<T> parseWith(F read) {
    try {
        return read();
    } catch (const std::exception& e) {
        return fail(Code::kInternal, std::string("broken record: ") + e.what());
    }
}

}  // namespace

std::string writeProcessRecord(const ProcessRecord& record) {
    return toJson(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string writeContainerRecord(const ContainerRecord& record) {
    Json json = toJson(record.init);
    json["cgroups"] = cgroupsToJson(record.cgroups);
    if (!record.service_cgroups.empty()) {
        json["service_cgroups"] = cgroupsToJson(record.service_cgroups);
    }
    json["bundle"] = record.bundle;
    json["own_pid_namespace"] = record.own_pid_namespace;
    if (const ResctrlGroup& group = record.resctrl; !group.path.empty()) {
        json["resctrl"] = {{"path", group.path},
                           {"made", group.made},
                           {"named", group.named},
                           {"monitor", group.monitor}};
    }
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<ProcessRecord> parseProcessRecord(const std::string& text) {
    return parseWith<ProcessRecord>([&] { return fromJson(Json::parse(text)); });
}

Result<ContainerRecord> parseContainerRecord(const std::string& text) {
    return parseWith<ContainerRecord>([&] {
        const Json json = Json::parse(text);
        ContainerRecord record;
        record.init = fromJson(json);
        record.cgroups = cgroupsFromJson(json.at("cgroups"));
        if (json.contains("service_cgroups")) {
            record.service_cgroups = cgroupsFromJson(json.at("service_cgroups"));
        }
        record.bundle = json.at("bundle").get<std::string>();
        record.own_pid_namespace = json.at("own_pid_namespace").get<bool>();
        if (json.contains("resctrl")) {
            const Json& group = json.at("resctrl");
            record.resctrl = {group.at("path").get<std::string>(), group.at("made").get<bool>(),
                              group.at("named").get<bool>(),
                              group.at("monitor").get<std::string>()};
        }
        return record;
    });
}

std::string seccompListenerMessage(const spec::State& state, pid_t pid,
                                   const std::string& metadata) {
    Json json = {{"ociVersion", state.ociVersion},
                 {"fds", {"seccompFd"}},
                 {"pid", pid},
                 {"state", Json::parse(spec::writeState(state), nullptr, false)}};
    if (!metadata.empty()) json["metadata"] = metadata;
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string execFileStem(const std::string& id) {
    if (id.size() <= kLongestPlainStem) return id;
    // '~' cannot stand in an id, so no plain stem looks like this.
    return id.substr(0, kStemPrefix) + "~" + base::fnv1aHex(id);
}

std::optional<FileStamp> stampOf(int dir_fd, const char* name) {
    struct stat st {};
    if (::fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
    return FileStamp{st.st_ino,
                     int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + int64_t{st.st_mtim.tv_nsec}};
}

}  // namespace arca::vminitd
