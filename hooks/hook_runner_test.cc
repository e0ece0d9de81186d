#include "hooks/hook_runner.h"

#include <boost/test/unit_test.hpp>

#include "base/temp_dir.h"

namespace arca::hooks {
namespace {

using base::TempDir;

spec::Hook shell(std::string script) {
    spec::Hook hook;
    hook.path = "/bin/sh";
    hook.args = {"sh", "-c", std::move(script)};
    return hook;
}

HookContext context(const TempDir& dir) {
    HookContext out;
    out.kind = "prestart";
    out.state = {"1.2.1", "c", "creating", 42, "/b", {{"k", "v"}}};
    out.cwd = dir.path();
    out.default_env = {"PATH=/usr/bin:/bin", "FROM=caller"};
    return out;
}

std::string failure(const base::Result<>& result) {
    return result ? "" : result.error().message();
}

std::string read(const TempDir& dir, const std::string& name) {
    return base::readFile(name, 65536, dir.fd()).value_or("(missing)");
}

BOOST_AUTO_TEST_SUITE(hook_runner)

BOOST_AUTO_TEST_CASE(stdin_is_the_state_and_nothing_else) {
    const TempDir dir;
    BOOST_TEST(failure(runHooks({shell("cat > state")}, context(dir))) == "");
    BOOST_TEST(read(dir, "state") ==
               R"({"ociVersion":"1.2.1","id":"c","status":"creating","pid":42,"bundle":"/b",)"
               R"("annotations":{"k":"v"}})");
}

BOOST_AUTO_TEST_CASE(they_run_in_order_and_stop_at_the_first_failure) {
    const TempDir dir;
    const auto result = runHooks(
        {shell("printf 1 >> order"), shell("printf 2 >> order; echo a; echo b >&2; exit 7"),
         shell("printf 3 >> order")},
        context(dir));
    BOOST_TEST(failure(result) ==
               "error running prestart hook #1: exit status 7, stdout: a, stderr: b");
    BOOST_TEST((result.error().code() == base::Code::kFailedPrecondition));
    BOOST_TEST(read(dir, "order") == "12");
}

BOOST_AUTO_TEST_CASE(the_given_environment_replaces_the_callers) {
    const TempDir dir;
    spec::Hook own = shell("echo \"$FROM,$OWN\" > own");
    own.env = std::vector<std::string>{"OWN=yes"};
    spec::Hook empty = shell("echo \"$FROM,$OWN\" > empty");
    empty.env.emplace();
    const spec::Hook inherited = shell("echo \"$FROM,$OWN\" > inherited");
    BOOST_TEST(failure(runHooks({own, empty, inherited}, context(dir))) == "");
    BOOST_TEST(read(dir, "own") == ",yes\n");
    BOOST_TEST(read(dir, "empty") == ",\n");
    BOOST_TEST(read(dir, "inherited") == "caller,\n");
}

BOOST_AUTO_TEST_CASE(argv_is_as_given_and_the_path_when_absent) {
    const TempDir dir;
    BOOST_TEST_REQUIRE(
        base::replaceFile(dir.fd(), "show", "#!/bin/sh\necho \"$#\" > out\n", 0700).has_value());
    spec::Hook hook;
    hook.path = dir.path() + "/show";
    BOOST_TEST(failure(runHooks({hook}, context(dir))) == "");
    BOOST_TEST(read(dir, "out") == "0\n");
    hook.args = {"show", "a", "b c"};
    BOOST_TEST(failure(runHooks({hook}, context(dir))) == "");
    BOOST_TEST(read(dir, "out") == "2\n");
}

BOOST_AUTO_TEST_CASE(a_hook_that_cannot_start_or_is_killed_says_so) {
    const TempDir dir;
    spec::Hook missing;
    missing.path = "/no/such/hook";
    BOOST_TEST(failure(runHooks({missing}, context(dir))) ==
               "error running prestart hook #0: exec /no/such/hook: no such file or directory");
    BOOST_TEST(failure(runHooks({shell("kill -TERM $$")}, context(dir))) ==
               "error running prestart hook #0: killed by SIGTERM, stdout: , stderr: ");
}

BOOST_AUTO_TEST_CASE(a_hook_past_its_time_is_killed) {
    const TempDir dir;
    spec::Hook slow = shell("sleep 1000");
    slow.timeout = 1;
    const auto result = runHooks({slow}, context(dir));
    BOOST_TEST(failure(result) ==
               "error running prestart hook #0: hook ran past specified timeout of 1.0s");
    BOOST_TEST((result.error().code() == base::Code::kDeadlineExceeded));
}

BOOST_AUTO_TEST_CASE(output_cannot_break_the_message) {
    const TempDir dir;
    const std::string text =
        failure(runHooks({shell("printf 'a\\nb\\033[1m\\n'; exit 1")}, context(dir)));
    BOOST_TEST(text ==
               "error running prestart hook #0: exit status 1, stdout: a\\x0ab\\x1b[1m, stderr: ");
}

// Field report 10: each poststop hook runs, whatever the one before did.
BOOST_AUTO_TEST_CASE(all_of_them_run_and_failures_are_warnings) {
    const TempDir dir;
    HookContext poststop = context(dir);
    poststop.kind = "poststop";
    std::vector<std::string> warnings;
    runAllHooks({shell("touch a"), shell("exit 1"), shell("touch b")}, poststop,
                [&](const base::Error& error) { warnings.push_back(error.message()); });
    BOOST_TEST(base::listDir(dir.fd()).value() == (std::vector<std::string>{"a", "b"}));
    BOOST_TEST_REQUIRE(warnings.size() == 1U);
    BOOST_TEST(warnings[0] == "error running poststop hook #1: exit status 1, stdout: , stderr: ");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::hooks
