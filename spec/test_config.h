// Configurations for unit tests; only *_test.cc include this.
#pragma once

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "spec/parse.h"

namespace arca::spec {

// The smallest configuration of a bundle, with `patch` merged into it as RFC 7396 says: objects are
// merged, null removes, all else replaces.
inline std::string config(std::string_view patch = "{}") {
    auto json = nlohmann::json::parse(R"({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"},
                                 {"type": "ipc"}, {"type": "network"}]}
    })");
    json.merge_patch(nlohmann::json::parse(patch));
    return json.dump();
}

// The message with which `json` is refused; "" when it is accepted.
inline std::string complaint(std::string_view json, Source source = Source::kBundle) {
    const auto result = parseSpec(json, source);
    if (result) return "";
    BOOST_TEST((result.error().code() == base::Code::kInvalidArgument));
    return result.error().message();
}

// Parses config(`patch`), which must be valid.
inline Spec parsed(std::string_view patch = "{}", Source source = Source::kBundle) {
    auto result = parseSpec(config(patch), source);
    BOOST_TEST_REQUIRE(result.has_value(), (result ? "" : result.error().message()));
    return std::move(*result);
}

// What config(`patch`) is refused with, for tables.
struct Refusal {
    std::string_view patch;
    std::string_view message;
};
inline void checkRefusals(const std::vector<Refusal>& table) {
    for (const auto& [patch, message] : table) {
        BOOST_TEST_CONTEXT(patch) {
            BOOST_TEST(complaint(config(patch)) == message);
        }
    }
}

}  // namespace arca::spec
