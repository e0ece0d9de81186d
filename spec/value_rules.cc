#include "spec/value_rules.h"

#include "base/strings.h"

namespace arca::spec {

void getOneOf(const JsonObject& object, std::string_view name, std::string& target,
              names::List known, std::string_view complaint) {
    if (!object.get(name, target) || target.empty() || names::contains(known, target)) return;
    object.fail(name, shown(target) + " " + std::string(complaint));
}

void requireOneOf(const JsonObject& object, std::string_view name, std::string& target,
                  names::List known, std::string_view complaint) {
    getOneOf(object, name, target, known, complaint);
    if (target.empty()) object.missing(name);
}

void getListOf(const JsonObject& object, std::string_view name, std::vector<std::string>& target,
               names::List known, std::string_view complaint) {
    if (!object.get(name, target)) return;
    for (size_t i = 0; i < target.size() && !object.failed(); ++i) {
        if (names::contains(known, target[i])) continue;
        object.find(name).element(i).fail(shown(target[i]) + " " + std::string(complaint));
    }
}

void requireText(const JsonObject& object, std::string_view name, std::string& target) {
    if (object.require(name, target) && target.empty()) object.fail(name, "must not be empty");
}

void getAbsolutePath(const JsonObject& object, std::string_view name, std::string& target) {
    if (!object.get(name, target) || target.empty() || isAbsolute(target)) return;
    object.fail(name, "must be an absolute path, is " + shown(target));
}

void getAbsolutePaths(const JsonObject& object, std::string_view name,
                      std::vector<std::string>& target) {
    if (!object.get(name, target)) return;
    for (size_t i = 0; i < target.size() && !object.failed(); ++i) {
        if (isAbsolute(target[i])) continue;
        object.find(name).element(i).fail("must be an absolute path, is " + shown(target[i]));
    }
}

void getId(const JsonObject& object, std::string_view name, uint32_t& target) {
    if (object.get(name, target) && target == UINT32_MAX) object.fail(name, "must be below 2^32-1");
}

void refuseOthers(JsonValue value, names::List known) {
    if (!value.exists() || !value.expect(JsonType::kObject)) return;
    value.forEach([&](JsonValue member) {
        if (!names::contains(known, member.key())) member.fail("is not known");
    });
}

void checkEnvironment(JsonValue list) {
    if (!list.exists() || list.type() != JsonType::kArray) return;
    list.forEach([](JsonValue entry) {
        const size_t equals = entry.text().find('=');
        // The value is not shown: it may be a secret.
        if (equals == std::string_view::npos) {
            entry.fail("an environment entry must have the form NAME=VALUE");
        } else if (equals == 0) {
            entry.fail("an environment entry must have a name");
        }
    });
}

void checkNumberList(const JsonObject& object, std::string_view name, std::string_view text,
                     uint32_t max) {
    for (const std::string_view part : base::split(text, ',')) {
        const std::string_view range = base::trim(part);
        const size_t dash = range.find('-');
        const auto first = base::parseNumber<uint32_t>(range.substr(0, dash));
        const auto last = dash == std::string_view::npos
                              ? first
                              : base::parseNumber<uint32_t>(range.substr(dash + 1));
        if (first && last && *first <= *last && *last <= max) continue;
        object.fail(name,
                    shown(text) + " is no list of numbers and ranges up to " + std::to_string(max));
        return;
    }
}

bool isInterfaceName(std::string_view name) {
    constexpr size_t kLongest = 15;  // IFNAMSIZ with its NUL is 16
    if (name.empty() || name.size() > kLongest || name == "." || name == "..") return false;
    return name.find_first_of("/: \t\n\v\f\r") == std::string_view::npos;
}

static void decode(JsonValue value, IdMapping& target) {
    const JsonObject object(value);
    object.require("containerID", target.containerID);
    object.require("hostID", target.hostID);
    object.require("size", target.size);
    if (object.failed()) return;
    if (target.size == 0) object.fail("size", "must be at least 1");
    const auto overflows = [&](uint32_t first) {
        return uint64_t{first} + target.size > uint64_t{UINT32_MAX} + 1;
    };
    if (overflows(target.containerID) || overflows(target.hostID)) {
        object.fail("size", "the range ends above 2^32-1");
    }
}

void getIdMappings(const JsonObject& object, std::string_view name,
                   std::vector<IdMapping>& target) {
    object.get(name, target);
}

}  // namespace arca::spec
