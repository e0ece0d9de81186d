#include "runtime/hook_places.h"

#include <boost/test/unit_test.hpp>

#include "runtime/settings.h"

namespace arca::runtime {
namespace {

constexpr const char* kStages[] = {"prestart",       "createRuntime", "createContainer",
                                   "startContainer", "poststart",     "poststop"};

spec::Hooks oneOfEach() {
    spec::Hooks hooks;
    for (const char* stage : kStages) hooks.find(stage)->emplace_back().path = "/hook";
    return hooks;
}

// The stages that have hooks.
std::string stagesOf(spec::Hooks hooks) {
    std::string out;
    for (const char* stage : kStages) {
        if (!hooks.find(stage)->empty()) out += (out.empty() ? "" : " ") + std::string(stage);
    }
    return out;
}

std::string failure(const std::string& sandbox, const std::vector<std::string>& in_guest,
                    spec::Hooks hooks) {
    const auto host = takeHostHooks(sandbox, in_guest, hooks);
    return host ? "" : host.error().message();
}

BOOST_AUTO_TEST_SUITE(hook_places)

BOOST_AUTO_TEST_CASE(hooks_of_the_host_stay_on_the_host) {
    for (const char* sandbox : {"vm", "connect=vsock://3"}) {
        spec::Hooks hooks = oneOfEach();
        const auto host = takeHostHooks(sandbox, {}, hooks);
        BOOST_TEST_REQUIRE(host.has_value());
        BOOST_TEST(stagesOf(*host) == "prestart createRuntime poststart poststop");
        BOOST_TEST(stagesOf(hooks) == "createContainer startContainer");
    }
}

BOOST_AUTO_TEST_CASE(named_stages_go_to_the_guest) {
    spec::Hooks hooks = oneOfEach();
    const auto host = takeHostHooks("vm", {"createRuntime", "poststop", "startContainer"}, hooks);
    BOOST_TEST_REQUIRE(host.has_value());
    BOOST_TEST(stagesOf(*host) == "prestart poststart");
    BOOST_TEST(stagesOf(hooks) == "createRuntime createContainer startContainer poststop");
}

BOOST_AUTO_TEST_CASE(the_local_agent_sees_all_and_moves_none) {
    spec::Hooks hooks = oneOfEach();
    const auto host = takeHostHooks("local", {"prestart"}, hooks);
    BOOST_TEST_REQUIRE(host.has_value());
    BOOST_TEST(stagesOf(*host) == "prestart createRuntime poststart poststop");
    BOOST_TEST(stagesOf(hooks) ==
               "prestart createRuntime createContainer startContainer poststart poststop");
}

BOOST_AUTO_TEST_CASE(a_service_on_the_host_is_an_error) {
    spec::Hooks hooks = oneOfEach();
    hooks.createRuntime.emplace_back().path = "/tap";
    hooks.createRuntime.back().service.emplace().name = "tap";
    BOOST_TEST(failure("vm", {}, hooks)
                   .find("hooks.createRuntime[1].service: this hook runs on "
                         "the host") == 0U);
    BOOST_TEST(failure("local", {"createRuntime"}, hooks) != "");
    BOOST_TEST(failure("vm", {"createRuntime"}, hooks) == "");
}

BOOST_AUTO_TEST_CASE(stages_are_a_list_of_known_names) {
    BOOST_TEST((parseStages("prestart, poststop").value() ==
                std::vector<std::string>{"prestart", "poststop"}));
    BOOST_TEST(parseStages("").value().empty());
    BOOST_TEST(parseStages("prestart,later").error().message() == "later: no stage of hooks");
}

BOOST_AUTO_TEST_CASE(the_configuration_and_an_allowed_annotation_move_stages) {
    auto settings = parseSettings(R"({"vm": {"guest_hooks": ["prestart"]},
                                      "allowed_annotations": ["io.arca.hooks.guest"]})");
    BOOST_TEST_REQUIRE(settings.has_value());
    BOOST_TEST((settings->vm.guest_hooks == std::vector<std::string>{"prestart"}));
    BOOST_TEST(
        applyAnnotations({{kGuestHooksAnnotation, "poststart,poststop"}}, *settings).has_value());
    BOOST_TEST((settings->vm.guest_hooks == std::vector<std::string>{"poststart", "poststop"}));
    const auto wrong = applyAnnotations({{kGuestHooksAnnotation, "x"}}, *settings);
    BOOST_TEST(wrong.error().message() == "annotation io.arca.hooks.guest: x: no stage of hooks");
    settings->allowed_annotations.clear();
    const auto refused = applyAnnotations({{kGuestHooksAnnotation, "prestart"}}, *settings);
    BOOST_TEST((refused.error().code() == base::Code::kPermissionDenied));
    BOOST_TEST(parseSettings(R"({"vm": {"guest_hooks": ["x"]}})").error().message() ==
               "vm.guest_hooks: x: no stage of hooks");
    BOOST_TEST(parseSettings(R"({"vm": {"guest_hooks": "prestart"}})").error().message() ==
               "vm.guest_hooks: not an array");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
