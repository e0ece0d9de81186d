#include "hooks/hook_file.h"

#include <boost/test/unit_test.hpp>

namespace arca::hooks {
namespace {

std::string failure(const std::string& text) {
    const auto parsed = parseHookFile(text);
    return parsed ? "" : parsed.error().message();
}

// A whole file around a `when`.
HookFile withWhen(const std::string& when) {
    auto parsed = parseHookFile(R"({"version": "1.0.0", "hook": {"path": "/h"}, "when": )" + when +
                                R"(, "stages": ["prestart"]})");
    BOOST_TEST_REQUIRE(parsed.has_value(), parsed.error().message());
    return std::move(*parsed);
}

spec::Spec container() {
    spec::Spec spec;
    spec.process.emplace();
    spec.process->args = {"/usr/bin/python3", "-c", "pass"};
    spec.annotations = {{"org.example.net", "forwarded"}, {"b", "two"}};
    return spec;
}

bool holds(const std::string& when, const spec::Spec& spec = container()) {
    return withWhen(when).when.holds(spec);
}

BOOST_AUTO_TEST_SUITE(hook_file)

BOOST_AUTO_TEST_CASE(a_complete_file_is_read) {
    const auto file = parseHookFile(R"({"version": "1.0.0",
        "hook": {"path": "/sbin/h", "args": ["h", "-v"], "env": ["A=1"], "timeout": 3},
        "when": {"always": true}, "stages": ["poststop", "createRuntime", "poststop"]})");
    BOOST_TEST_REQUIRE(file.has_value(), file.error().message());
    BOOST_TEST(file->hook.path == "/sbin/h");
    BOOST_TEST((file->hook.args == std::vector<std::string>{"h", "-v"}));
    BOOST_TEST((file->hook.env == std::vector<std::string>{"A=1"}));
    BOOST_TEST(file->hook.timeout.value() == 3);
    BOOST_TEST(!file->hook.service.has_value());
    BOOST_TEST((file->stages == std::vector<std::string>{"poststop", "createRuntime"}));
}

BOOST_AUTO_TEST_CASE(a_service_stands_beside_the_hook) {
    const auto file = parseHookFile(R"({"version": "1.0.0", "hook": {"path": "/sbin/tap"},
        "service": {"ready": {"fd": true}, "namespaces": ["network"], "onExit": "kill",
                    "stopSignal": "INT", "stopTimeout": 2},
        "when": {"always": true}, "stages": ["createRuntime"]})");
    BOOST_TEST_REQUIRE(file.has_value(), file.error().message());
    const spec::HookService& service = file->hook.service.value();
    BOOST_TEST(service.name == "tap");
    BOOST_TEST((service.ready == spec::HookService::Ready::kFd));
    BOOST_TEST(service.network_namespace);
    BOOST_TEST((service.on_exit == spec::HookService::OnExit::kKill));
    BOOST_TEST(service.stop_signal == 2);
    BOOST_TEST(service.stop_timeout == 2);
}

BOOST_AUTO_TEST_CASE(what_is_wrong_is_named) {
    const std::string hook = R"("hook": {"path": "/h"}, )";
    const std::string when = R"("when": {"always": true}, )";
    const std::string version = R"("version": "1.0.0", )";
    const std::string stages = R"("stages": ["prestart"])";
    const struct {
        std::string text, message;
    } cases[] = {
        {"{", "invalid JSON at byte 1: "},
        {"[]", "the document must be an object, not an array"},
        {"{" + hook + when + stages + "}", "/version: is required"},
        {R"({"version": "0.1.0", )" + hook + when + stages + "}",
         "/version: must be 1.0.0, is 0.1.0"},
        {R"({"version": 1, )" + hook + when + stages + "}", "/version: must be a string"},
        {"{" + version + when + stages + "}", "/hook: is required"},
        {"{" + version + R"("hook": "/h", )" + when + stages + "}", "/hook: must be an object"},
        {"{" + version + R"("hook": {"args": ["h"]}, )" + when + stages + "}",
         "/hook/path: is required"},
        {"{" + version + R"("hook": {"path": "h"}, )" + when + stages + "}",
         "/hook/path: must be an absolute path, is h"},
        {"{" + version + R"("hook": {"path": "/h", "timeout": 0}, )" + when + stages + "}",
         "/hook/timeout: must be at least 1, is 0"},
        {"{" + version + R"("hook": {"path": "/h", "service": {}}, )" + when + stages + "}",
         "/hook/service: is not known"},
        {"{" + version + hook + stages + "}", "/when: is required"},
        {"{" + version + hook + R"("when": {}, )" + stages + "}", "/when: needs a condition"},
        {"{" + version + hook + R"("when": {"allways": true}, )" + stages + "}",
         "/when/allways: is not known"},
        {"{" + version + hook + R"("when": {"commands": ["a", "("]}, )" + stages + "}",
         "/when/commands/1: not a regular expression: "},
        {"{" + version + hook + R"("when": {"annotations": {"a[": "b"}}, )" + stages + "}",
         "/when/annotations/a[: not a regular expression: "},
        {"{" + version + hook + R"("when": {"annotations": {"a": 1}}, )" + stages + "}",
         "/when/annotations/a: must be a string"},
        {"{" + version + hook + R"("when": {"commands": ["(a{255}){255}"]}, )" + stages + "}",
         "/when/commands/0: the regular expression repeats too much"},
        {"{" + version + hook + R"("when": {"always": true})" + "}", "/stages: is required"},
        {"{" + version + hook + when + R"("stages": [])" + "}", "/stages: must not be empty"},
        {"{" + version + hook + when + R"("stages": ["prestart", "later"])" + "}",
         "/stages/1: later is no stage of hooks"},
        {"{" + version + hook + when + stages + R"(, "extra": 1})", "/extra: is not known"},
        {"{" + version + hook + when + R"("service": {}, "stages": ["poststart"]})",
         "/stages: of a service must be either prestart or createRuntime"},
        {"{" + version + hook + when + R"("service": {}, "stages": ["prestart", "createRuntime"]})",
         "/stages: of a service must be either prestart or createRuntime"},
        {"{" + version + hook + when + R"("service": {"ready": {"fd": false}}, )" + stages + "}",
         "/service/ready/fd: must be true"},
    };
    for (const auto& one : cases) {
        BOOST_TEST_CONTEXT(one.text) {
            const std::string text = failure(one.text);
            BOOST_TEST(text.substr(0, one.message.size()) == one.message);
        }
    }
}

BOOST_AUTO_TEST_CASE(always_is_always_or_never) {
    BOOST_TEST(holds(R"({"always": true})"));
    BOOST_TEST(!holds(R"({"always": false})"));
    BOOST_TEST(!holds(R"({"always": false, "commands": ["python"]})"));
}

BOOST_AUTO_TEST_CASE(each_annotation_pair_must_match_one_annotation) {
    BOOST_TEST(holds(R"({"annotations": {"^org\\.example\\.net$": "^forwarded$"}})"));
    BOOST_TEST(!holds(R"({"annotations": {"^org\\.example$": "^forwarded$"}})"));
    BOOST_TEST(!holds(R"({"annotations": {"^org\\.example\\.net$": "^forward$"}})"));
    BOOST_TEST(holds(R"({"annotations": {"net": "for", "^b$": "."}})"));
    BOOST_TEST(!holds(R"({"annotations": {"net": "for", "^c$": "."}})"));
    // Name and value of the same one.
    BOOST_TEST(!holds(R"({"annotations": {"^b$": "forwarded"}})"));
}

BOOST_AUTO_TEST_CASE(a_command_is_args_0) {
    BOOST_TEST(holds(R"({"commands": ["^/usr/bin/python3$"]})"));
    BOOST_TEST(holds(R"({"commands": ["perl", "python"]})"));
    BOOST_TEST(!holds(R"({"commands": ["-c", "pass"]})"));
    spec::Spec none = container();
    none.process->args.clear();
    BOOST_TEST(!holds(R"({"commands": ["."]})", none));
    none.process.reset();
    BOOST_TEST(!holds(R"({"commands": ["."]})", none));
}

BOOST_AUTO_TEST_CASE(bind_mounts_are_known_by_type_or_option) {
    spec::Spec spec = container();
    spec.mounts.push_back({"/proc", "proc", "proc", {}, {}, {}});
    BOOST_TEST(!holds(R"({"hasBindMounts": true})", spec));
    spec.mounts.push_back({"/data", "none", "/d", {"rbind", "ro"}, {}, {}});
    BOOST_TEST(holds(R"({"hasBindMounts": true})", spec));
    BOOST_TEST(!holds(R"({"hasBindMounts": false})", spec));
}

BOOST_AUTO_TEST_CASE(all_conditions_that_are_given_must_hold) {
    const std::string both = R"({"always": true, "commands": ["python"],
                                 "annotations": {"^b$": "two"}, "hasBindMounts": true})";
    spec::Spec spec = container();
    BOOST_TEST(!holds(both, spec));
    spec.mounts.push_back({"/data", "bind", "/d", {}, {}, {}});
    BOOST_TEST(holds(both, spec));
    spec.annotations.erase("b");
    BOOST_TEST(!holds(both, spec));
}

BOOST_AUTO_TEST_CASE(a_pattern_is_bounded) {
    BOOST_TEST(Pattern::compile(std::string(Pattern::kMaxBytes, 'a')).has_value());
    BOOST_TEST(!Pattern::compile(std::string(Pattern::kMaxBytes + 1, 'a')).has_value());
    BOOST_TEST(Pattern::compile("[a-z]{1,63}(\\.[a-z]{1,63})*").has_value());
    BOOST_TEST(!Pattern::compile("((a{64}){64}){64}").has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::hooks
