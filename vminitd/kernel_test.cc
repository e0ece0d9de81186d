#include "vminitd/kernel.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <map>

#include "base/files.h"
#include "vminitd/environment.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

using base::Code;

Emulator x86() {
    return {.binary_path = "/run/rosetta/rosetta",
            .name = "x86_64",
            .type = "M",
            .offset = "",
            .magic = "\\x7fELF\\x02\\x01",
            .mask = "\\xff\\xff",
            .flags = "CF"};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(kernel)

BOOST_AUTO_TEST_CASE(sysctls_are_checked_before_any_is_written) {
    TestFolder sys;
    BOOST_TEST_REQUIRE(base::makeDirs(sys.path() + "/net/core", 0755).has_value());
    sys.write("net/core/a", "");
    sys.write("z", "");
    BOOST_TEST(setSysctls({{"net.core.a", "1"}, {"z", "2"}}, sys.path()).has_value());
    BOOST_TEST(*base::readFile(sys.path() + "/net/core/a") == "1");
    BOOST_TEST(*base::readFile(sys.path() + "/z") == "2");
    for (const char* key : {"", "..", "net/../../x", "net..a", "/etc/passwd", "a/"}) {
        const auto set = setSysctls({{"net.core.a", "3"}, {key, "3"}}, sys.path());
        BOOST_TEST_REQUIRE(!set.has_value(), key);
        BOOST_TEST((set.error().code() == Code::kInvalidArgument));
    }
    BOOST_TEST(*base::readFile(sys.path() + "/net/core/a") == "1");
    BOOST_TEST(!setSysctls({{std::string("a\0b", 3), "1"}}, sys.path()).has_value());
    const auto missing = setSysctls({{"net.nosuch", "1"}}, sys.path());
    BOOST_TEST_REQUIRE(!missing.has_value());
    BOOST_TEST(missing.error().message() ==
               "failed to set sysctl net.nosuch: no such file or directory");
}

BOOST_AUTO_TEST_CASE(impossible_times_are_refused) {
    BOOST_TEST((setTime(-1, 0).error().code() == Code::kInvalidArgument));
    BOOST_TEST((setTime(1, -1).error().code() == Code::kInvalidArgument));
    BOOST_TEST((setTime(1, 1'000'000).error().code() == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(an_emulators_line) {
    BOOST_TEST(*emulatorLine(x86()) ==
               ":x86_64:M::\\x7fELF\\x02\\x01:\\xff\\xff:/run/rosetta/rosetta:CF");
}

BOOST_AUTO_TEST_CASE(no_part_of_an_emulator_can_be_another_part) {
    std::map<std::string, Emulator> cases;
    const auto with = [](auto change) {
        Emulator emulator = x86();
        change(emulator);
        return emulator;
    };
    for (const char* name : {"", "..", "a/b", "a:b", "a\nb", "register", "status"}) {
        cases[std::string("name ") + name] = with([&](Emulator& e) { e.name = name; });
    }
    cases["type"] = with([](Emulator& e) { e.type = "X"; });
    cases["offset"] = with([](Emulator& e) { e.offset = "-1"; });
    cases["magic"] = with([](Emulator& e) { e.magic = ""; });
    cases["magic colon"] = with([](Emulator& e) { e.magic = "a:b"; });
    cases["mask"] = with([](Emulator& e) { e.mask = "a\nb"; });
    cases["relative"] = with([](Emulator& e) { e.binary_path = "bin/x"; });
    cases["path"] = with([](Emulator& e) { e.binary_path = "/a:C"; });
    cases["flags"] = with([](Emulator& e) { e.flags = "CZ"; });
    cases["long"] = with([](Emulator& e) { e.magic = std::string(2000, 'a'); });
    for (const auto& [name, emulator] : cases) {
        const auto line = emulatorLine(emulator);
        BOOST_TEST_REQUIRE(!line.has_value(), name);
        BOOST_TEST((line.error().code() == Code::kInvalidArgument), name);
    }
}

BOOST_AUTO_TEST_CASE(an_emulator_is_registered) {
    TestFolder folder;
    folder.write("register", "");
    BOOST_TEST(setUpEmulator(x86(), folder.path()).has_value());
    BOOST_TEST(*base::readFile(folder.path() + "/register") == *emulatorLine(x86()));
}

BOOST_AUTO_TEST_CASE(the_agent_is_never_hit) {
    for (const pid_t pid : {0, 1, ::getpid(), -::getpgrp()}) {
        const auto sent = killAny(pid, 0);
        BOOST_TEST_REQUIRE(!sent.has_value());
        BOOST_TEST((sent.error().code() == Code::kInvalidArgument));
    }
    BOOST_TEST((killAny(2, 65).error().code() == Code::kInvalidArgument));
    BOOST_TEST((killAny(2, -1).error().code() == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(a_process_and_a_group_are_hit) {
    for (const int direction : {1, -1}) {
        const pid_t child = ::fork();
        if (child == 0) {
            (void)::setpgid(0, 0);
            while (true) (void)::pause();
        }
        (void)::setpgid(child, child);
        BOOST_TEST(killAny(direction * child, SIGTERM).has_value());
        int status = 0;
        BOOST_TEST(::waitpid(child, &status, 0) == child);
        BOOST_TEST((WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM));
        const auto gone = killAny(direction * child, SIGTERM);
        BOOST_TEST_REQUIRE(!gone.has_value());
        BOOST_TEST(gone.error().message() ==
                   "kill " + std::to_string(direction * child) + ": no such process");
    }
}

BOOST_AUTO_TEST_CASE(the_environment_has_a_limit) {
    Environment environment(std::map<std::string, std::string>{{"PATH", "/bin"}});
    BOOST_TEST(*environment.get("PATH") == "/bin");
    const std::string half(Environment::kMaxBytes / 2, 'x');
    BOOST_TEST(environment.set("A", half).has_value());
    BOOST_TEST(environment.set("A", half).has_value());
    BOOST_TEST(!environment.set("B", half + "x").has_value());
    BOOST_TEST(!environment.get("B").has_value());
    BOOST_TEST(environment.set("A", "").has_value());
    BOOST_TEST(environment.set("B", half).has_value());
    BOOST_TEST(!environment.set("C=", "").has_value());
    BOOST_TEST(!environment.set("", "").has_value());
    BOOST_TEST(!environment.set("C", std::string("a\0b", 3)).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
