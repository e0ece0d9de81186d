#include <sys/resource.h>

#include <boost/test/unit_test.hpp>

#include "spec/test_config.h"

namespace arca::spec {
namespace {

// The process of config() with `patch` merged into it.
Process process(const std::string& patch) {
    return *parsed(R"({"process": )" + patch + "}").process;
}

void checkProcessRefusals(const std::vector<Refusal>& table) {
    for (const auto& [patch, message] : table) {
        BOOST_TEST_CONTEXT(patch) {
            BOOST_TEST(complaint(config(R"({"process": )" + std::string(patch) + "}")) ==
                       "/process" + std::string(message));
        }
    }
}

BOOST_AUTO_TEST_SUITE(parse_process)

BOOST_AUTO_TEST_CASE(args_and_cwd_are_required_of_a_bundle) {
    checkProcessRefusals({
        {R"({"args": null})", "/args: must have at least one entry"},
        {R"({"args": []})", "/args: must have at least one entry"},
        {R"({"args": [""]})", "/args/0: must not be empty"},
        {R"({"args": ["a", "b\u0000"]})", "/args/1: must not contain a NUL byte"},
        {R"({"cwd": null})", "/cwd: is required"},
        {R"({"cwd": ""})", "/cwd: is required"},
        {R"({"cwd": "rel"})", "/cwd: must be an absolute path, is rel"},
        {R"({"terminal": 1})", "/terminal: must be a boolean, not a number"},
    });
    BOOST_TEST(process(R"({"args": ["a", ""]})").args.at(1).empty());
}

BOOST_AUTO_TEST_CASE(environment_entries_have_a_name_and_their_value_is_not_shown) {
    checkProcessRefusals({
        {R"({"env": ["A=1", "SECRET"]})",
         "/env/1: an environment entry must have the form NAME=VALUE"},
        {R"({"env": ["=x"]})", "/env/0: an environment entry must have a name"},
        {R"({"env": [""]})", "/env/0: an environment entry must have the form NAME=VALUE"},
        {R"({"env": ["A=\u0000"]})", "/env/0: must not contain a NUL byte"},
        {R"({"env": [1]})", "/env/0: must be a string, not a number"},
        {R"({"env": "A=1"})", "/env: must be an array, not a string"},
    });
    BOOST_TEST(
        (process(R"({"env": ["A=", "B=c=d"]})").env == std::vector<std::string>{"A=", "B=c=d"}));
}

// Field report 8: a number needs no entry in any file, but it must be one.
BOOST_AUTO_TEST_CASE(users_are_numbers_below_the_one_that_means_unchanged) {
    checkProcessRefusals({
        {R"({"user": {"uid": -1}})", "/user/uid: must not be negative, is -1"},
        {R"({"user": {"uid": 4294967296}})", "/user/uid: 4294967296 does not fit uint32"},
        {R"({"user": {"uid": 4294967295}})", "/user/uid: must be below 2^32-1"},
        {R"({"user": {"gid": 4294967295}})", "/user/gid: must be below 2^32-1"},
        {R"({"user": {"gid": "0"}})", "/user/gid: must be a number, not a string"},
        {R"({"user": {"uid": 0.0}})", "/user/uid: must be an integer, not 0.0"},
        {R"({"user": {"umask": 512}})", "/user/umask: must be 0..511, is 512"},
        {R"({"user": {"additionalGids": [1, 4294967295]}})",
         "/user/additionalGids/1: must be below 2^32-1"},
    });
    const Process full = process(
        R"({"user": {"uid": 1000, "gid": 4294967294, "umask": 0, "additionalGids": [5, 6]}})");
    BOOST_TEST(full.user.uid == 1000U);
    BOOST_TEST(full.user.gid == 4294967294U);
    BOOST_TEST(full.user.umask.value() == 0U);
    BOOST_TEST((full.user.additionalGids == std::vector<uint32_t>{5, 6}));
    // runc takes a missing user for root.
    BOOST_TEST(process(R"({"user": null})").user.uid == 0U);
}

BOOST_AUTO_TEST_CASE(console_sizes_have_sixteen_bits_with_a_terminal) {
    checkProcessRefusals({
        {R"({"terminal": true, "consoleSize": {"height": 65536, "width": 1}})",
         "/consoleSize: must be at most 65535 each way"},
        {R"({"consoleSize": {"height": 1}})", "/consoleSize/width: is required"},
        {R"({"consoleSize": [25, 80]})", "/consoleSize: must be an object, not an array"},
    });
    // Without a terminal it is ignored.
    BOOST_TEST(process(R"({"consoleSize": {"height": 65536, "width": 1}})").args.size() == 1U);
    BOOST_TEST(process(R"({"terminal": true, "consoleSize": {"height": 40, "width": 120}})")
                   .consoleSize->height == 40U);
}

// Field report 16: what cannot be granted is for whoever grants it to warn about.
BOOST_AUTO_TEST_CASE(capabilities_may_have_any_name) {
    const Process given =
        process(R"({"capabilities": {"bounding": ["CAP_KILL", "CAP_NOT_REAL", "kill"]}})");
    BOOST_TEST(given.capabilities->bounding.size() == 3U);
    BOOST_TEST(given.capabilities->ambient.empty());
    BOOST_TEST(process(R"({"capabilities": {}})").capabilities.has_value());
    BOOST_TEST(!process("{}").capabilities.has_value());
    checkProcessRefusals({{R"({"capabilities": {"ambient": [7]}})",
                           "/capabilities/ambient/0: must be a string, not a number"}});
}

BOOST_AUTO_TEST_CASE(rlimits_are_known_given_once_and_not_upside_down) {
    checkProcessRefusals({
        {R"({"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                         {"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]})",
         "/rlimits/1/type: RLIMIT_FOO is no resource limit"},
        {R"({"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                         {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]})",
         "/rlimits/1/type: RLIMIT_CPU is given twice"},
        {R"({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]})",
         "/rlimits/0/soft: 2 is above the hard limit of 1"},
        {R"({"rlimits": [{"type": "RLIMIT_CPU", "hard": 1}]})", "/rlimits/0/soft: is required"},
        {R"({"rlimits": [{"soft": 1, "hard": 1}]})", "/rlimits/0/type: is required"},
        {R"({"rlimits": [{"type": "RLIMIT_CPU", "soft": -1, "hard": 1}]})",
         "/rlimits/0/soft: must not be negative, is -1"},
    });
    const Process given = process(R"({"rlimits": [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 18446744073709551615},
        {"type": "RLIMIT_RTTIME", "soft": 0, "hard": 0}]})");
    BOOST_TEST(given.rlimits.at(0).resource == RLIMIT_NOFILE);
    BOOST_TEST(given.rlimits.at(0).hard == RLIM_INFINITY);
    BOOST_TEST(given.rlimits.at(1).resource == 15);
}

BOOST_AUTO_TEST_CASE(all_sixteen_limits_have_a_number_of_their_own) {
    std::string list;
    for (const char* name :
         {"AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE",
          "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"}) {
        list += (list.empty() ? "" : ",") + std::string(R"({"type": "RLIMIT_)") + name +
                R"(", "soft": 1, "hard": 1})";
    }
    BOOST_TEST(process(R"({"rlimits": [)" + list + "]}").rlimits.size() == 16U);
}

BOOST_AUTO_TEST_CASE(oom_score_has_a_range) {
    checkProcessRefusals({
        {R"({"oomScoreAdj": 1001})", "/oomScoreAdj: must be -1000..1000, is 1001"},
        {R"({"oomScoreAdj": -1001})", "/oomScoreAdj: must be -1000..1000, is -1001"},
    });
    BOOST_TEST(process(R"({"oomScoreAdj": -1000})").oomScoreAdj.value() == -1000);
    BOOST_TEST(process(R"({"oomScoreAdj": 0})").oomScoreAdj.value() == 0);
    BOOST_TEST(!process("{}").oomScoreAdj.has_value());
}

BOOST_AUTO_TEST_CASE(schedulers_take_what_their_policy_takes) {
    checkProcessRefusals({
        {R"({"scheduler": {}})", "/scheduler/policy: is required"},
        {R"({"scheduler": {"policy": "SCHED_X"}})",
         "/scheduler/policy: SCHED_X is no scheduling policy"},
        {R"({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}})",
         "/scheduler/nice: must be -20..19, is 20"},
        {R"({"scheduler": {"policy": "SCHED_OTHER", "priority": 1}})",
         "/scheduler/priority: is only for SCHED_FIFO and SCHED_RR"},
        {R"({"scheduler": {"policy": "SCHED_FIFO"}})",
         "/scheduler/priority: must be 1..99 for SCHED_FIFO, is 0"},
        {R"({"scheduler": {"policy": "SCHED_RR", "priority": 100}})",
         "/scheduler/priority: must be 1..99 for SCHED_RR, is 100"},
        {R"({"scheduler": {"policy": "SCHED_BATCH", "runtime": 1}})",
         "/scheduler/runtime: is only for SCHED_DEADLINE"},
        {R"({"scheduler": {"policy": "SCHED_DEADLINE"}})",
         "/scheduler/runtime: must be at least 1024 ns"},
        {R"({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 1999}})",
         "/scheduler/deadline: is below the runtime"},
        {R"({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000,
             "period": 2500}})",
         "/scheduler/period: is below the deadline"},
        {R"({"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}})",
         "/scheduler/flags/0: SCHED_FLAG_X is no scheduler flag"},
    });
    const Process given = process(R"({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1000000,
        "deadline": 2000000, "period": 2000000, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}})");
    BOOST_TEST(given.scheduler->deadline == 2000000U);
    BOOST_TEST(
        process(R"({"scheduler": {"policy": "SCHED_BATCH", "nice": -20}})").scheduler->nice == -20);
}

BOOST_AUTO_TEST_CASE(io_priorities_have_a_class_and_eight_levels) {
    checkProcessRefusals({
        {R"({"ioPriority": {"priority": 1}})", "/ioPriority/class: is required"},
        {R"({"ioPriority": {"class": "IOPRIO_CLASS_X"}})",
         "/ioPriority/class: IOPRIO_CLASS_X is no I/O priority class"},
        {R"({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}})",
         "/ioPriority/priority: must be 0..7, is 8"},
    });
    BOOST_TEST(process(R"({"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 7}})")
                   .ioPriority->priority == 7);
}

BOOST_AUTO_TEST_CASE(cpu_affinities_are_lists) {
    for (const char* bad : {"x", "1-", "-1", "3-1", "1,,2", "0-9000", "1;2", ","}) {
        const std::string text(bad);
        BOOST_TEST(
            complaint(config(R"({"process": {"execCPUAffinity": {"initial": ")" + text +
                             R"("}}})")) == "/process/execCPUAffinity/initial: " + text +
                                                " is no list of numbers and ranges up to 8191",
            bad);
    }
    const Process given = process(R"({"execCPUAffinity": {"initial": "0-3, 7", "final": ""}})");
    BOOST_TEST(given.execCPUAffinity->initial == "0-3, 7");
}

BOOST_AUTO_TEST_CASE(a_process_on_its_own_is_read_by_the_same_rules) {
    const auto good =
        parseProcess(R"({"args": ["sh"], "cwd": "/", "user": {"uid": 5}})", Source::kBundle);
    BOOST_TEST_REQUIRE(good.has_value());
    BOOST_TEST(good->user.uid == 5U);
    const auto bad = parseProcess(R"({"args": ["sh"], "cwd": "x"})", Source::kBundle);
    BOOST_TEST_REQUIRE(!bad.has_value());
    BOOST_TEST(bad.error().message() == "/cwd: must be an absolute path, is x");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec
