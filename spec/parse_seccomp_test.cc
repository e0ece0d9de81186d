#include <boost/test/unit_test.hpp>

#include "spec/test_config.h"

namespace arca::spec {
namespace {

std::optional<Seccomp> seccomp(const std::string& json) {
    return parsed(R"({"linux": {"seccomp": )" + json + "}}").linux.seccomp;
}

void checkSeccompRefusals(const std::vector<Refusal>& table) {
    for (const auto& [json, message] : table) {
        BOOST_TEST_CONTEXT(json) {
            BOOST_TEST(complaint(config(R"({"linux": {"seccomp": )" + std::string(json) + "}}")) ==
                       "/linux/seccomp" + std::string(message));
        }
    }
}

BOOST_AUTO_TEST_SUITE(parse_seccomp)

BOOST_AUTO_TEST_CASE(an_object_that_asks_for_nothing_is_none) {
    BOOST_TEST(!seccomp("{}").has_value());
    BOOST_TEST(!seccomp(R"({"defaultAction": "", "syscalls": []})").has_value());
    BOOST_TEST(!seccomp(R"({"architectures": ["SCMP_ARCH_X86"]})").has_value());
    BOOST_TEST(seccomp(R"({"defaultAction": "SCMP_ACT_ALLOW"})").has_value());
    checkSeccompRefusals({
        {R"({"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW"}]})",
         "/defaultAction: is required"},
        {R"([])", ": must be an object, not an array"},
    });
}

// Field report 15.
BOOST_AUTO_TEST_CASE(names_of_system_calls_are_free_but_must_be_there) {
    const auto given = seccomp(R"({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_LOONGARCH64"],
        "syscalls": [{"names": ["futex_waitv", "no_such_call"], "action": "SCMP_ACT_ALLOW",
                      "args": [{"index": 5, "value": 18446744073709551615, "valueTwo": 1,
                                "op": "SCMP_CMP_MASKED_EQ"}]}]})");
    BOOST_TEST_REQUIRE(given.has_value());
    BOOST_TEST(given->defaultErrnoRet.value() == 38U);
    BOOST_TEST(given->syscalls.at(0).names.at(1) == "no_such_call");
    BOOST_TEST(given->syscalls[0].args.at(0).value == UINT64_MAX);
    BOOST_TEST(!given->flags.has_value());
    BOOST_TEST(seccomp(R"({"defaultAction": "SCMP_ACT_LOG", "flags": []})")->flags.has_value());
    checkSeccompRefusals({
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": [], "action":
             "SCMP_ACT_ALLOW"}]})",
         "/syscalls/0/names: must have at least one entry"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]})",
         "/syscalls/0/names: is required"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a", ""], "action":
             "SCMP_ACT_ALLOW"}]})",
         "/syscalls/0/names/1: must not be empty"},
    });
}

BOOST_AUTO_TEST_CASE(unknown_words_are_refused) {
    checkSeccompRefusals({
        {R"({"defaultAction": "SCMP_ACT_NOPE"})",
         "/defaultAction: SCMP_ACT_NOPE is no seccomp action"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a"], "action": "allow"}]})",
         "/syscalls/0/action: allow is no seccomp action"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a"]}]})",
         "/syscalls/0/action: is required"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_NOPE"]})",
         "/architectures/0: SCMP_ARCH_NOPE is no seccomp architecture"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "flags": ["X"]})", "/flags/0: X is no seccomp flag"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a"], "action":
             "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "EQ"}]}]})",
         "/syscalls/0/args/0/op: EQ is no comparison operator"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a"], "action":
             "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]})",
         "/syscalls/0/args/0/index: must be 0..5, is 6"},
        {R"({"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["a"], "action":
             "SCMP_ACT_ALLOW", "args": [{"value": 0, "op": "SCMP_CMP_EQ"}]}]})",
         "/syscalls/0/args/0/index: is required"},
    });
}

BOOST_AUTO_TEST_CASE(an_errno_belongs_to_errno_and_trace) {
    BOOST_TEST(seccomp(R"({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65535})")
                   ->defaultErrnoRet.value() == 65535U);
    checkSeccompRefusals({
        {R"({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 38})",
         "/defaultErrnoRet: is only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not SCMP_ACT_ALLOW"},
        {R"({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096})",
         "/defaultErrnoRet: must be at most 4095, is 4096"},
        {R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action":
             "SCMP_ACT_KILL", "errnoRet": 1}]})",
         "/syscalls/0/errnoRet: is only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not SCMP_ACT_KILL"},
        {R"({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1})",
         "/defaultErrnoRet: must not be negative, is -1"},
    });
}

BOOST_AUTO_TEST_CASE(notification_needs_a_listener_and_leaves_write_alone) {
    const auto given = seccomp(R"({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l",
        "listenerMetadata": "m", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]})");
    BOOST_TEST(given->listenerMetadata == "m");
    checkSeccompRefusals({
        {R"({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/l"})",
         "/defaultAction: SCMP_ACT_NOTIFY cannot be the default action"},
        {R"({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action":
             "SCMP_ACT_NOTIFY"}]})",
         "/listenerPath: is required with SCMP_ACT_NOTIFY"},
        {R"({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "syscalls": [{"names":
             ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}]})",
         "/syscalls/0/action: SCMP_ACT_NOTIFY cannot be used for the write system call"},
        {R"({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"})",
         "/listenerMetadata: must not be set without listenerPath"},
        {R"({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "rel"})",
         "/listenerPath: must be an absolute path, is rel"},
    });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec
