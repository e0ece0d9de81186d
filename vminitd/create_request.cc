#include "vminitd/create_request.h"

#include <nlohmann/json.hpp>

#include "base/ids.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using Json = nlohmann::json;

namespace {

bool looksLikeJson(std::string_view text) {
    return base::trim(text).substr(0, 1) == "{";
}

}  // namespace

CreateFields readCreateFields(std::optional<std::string> field6, std::string field7,
                              std::optional<std::string> field8) {
    if (!looksLikeJson(field7) && field6 && looksLikeJson(*field6)) {
        return CreateFields{false, std::move(*field6), std::move(field7)};
    }
    return CreateFields{field6.has_value(), std::move(field7),
                        std::move(field8).value_or(std::string())};
}

Result<CreateOptions> parseCreateOptions(const std::string& text) {
    CreateOptions options;
    if (text.empty()) return options;
    try {
        const Json json = Json::parse(text);
        options.from_command = true;
        options.bundle = json.value("bundle", "");
        options.no_pivot = json.value("no_pivot", false);
        options.no_new_keyring = json.value("no_new_keyring", false);
        options.preserve_fds = json.value("preserve_fds", 0);
        options.ignore_paused = json.value("ignore_paused", false);
        if (json.contains("rootless")) options.rootless = json.at("rootless").get<bool>();
        options.cgroups = json.value("cgroups", std::vector<std::string>());
        const std::string manager = json.value("cgroup_manager", "");
        if (manager == "systemd") options.cgroup = CreateOptions::Cgroup::kSystemd;
        if (manager == "disabled") options.cgroup = CreateOptions::Cgroup::kNone;
    } catch (const std::exception& e) {
        return fail(Code::kInvalidArgument, std::string("options: ") + e.what());
    }
    if (!options.bundle.empty() && options.bundle.front() != '/') {
        return fail(Code::kInvalidArgument, "options: bundle must be absolute");
    }
    if (options.preserve_fds < 0) {
        return fail(Code::kInvalidArgument, "options: preserve_fds must not be negative");
    }
    return options;
}

Result<> checkKey(const ProcessKey& key) {
    if (!key.container_id) {
        return fail(Code::kInvalidArgument, "processes in the root of the vm not implemented");
    }
    ARCA_CHECK(base::validateId(*key.container_id));
    return base::validateId(key.id);
}

}  // namespace arca::vminitd
