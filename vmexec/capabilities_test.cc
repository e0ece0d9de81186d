#include "vmexec/capabilities.h"

#include <boost/test/unit_test.hpp>

namespace {

using arca::spec::Capabilities;
using arca::vmexec::capabilityNumber;
using arca::vmexec::CapabilityPlan;
using arca::vmexec::CapabilitySets;
using arca::vmexec::planCapabilities;

constexpr uint64_t kKill = 1ULL << 5U;
constexpr uint64_t kNetRaw = 1ULL << 13U;
constexpr uint64_t kSysTime = 1ULL << 25U;
constexpr uint64_t kAll = (1ULL << 41U) - 1;

CapabilitySets everything() {
    return {.bounding = kAll, .effective = kAll, .permitted = kAll};
}

}  // namespace

BOOST_AUTO_TEST_SUITE(capabilities)

BOOST_AUTO_TEST_CASE(names_are_known_in_any_case_and_without_prefix) {
    BOOST_TEST(capabilityNumber("CAP_CHOWN").value() == 0U);
    BOOST_TEST(capabilityNumber("cap_kill").value() == 5U);
    BOOST_TEST(capabilityNumber("KILL").value() == 5U);
    BOOST_TEST(capabilityNumber("CAP_CHECKPOINT_RESTORE").value() == 40U);
    for (const char* name : {"", "CAP_", "CAP_NOT_REAL", "CAP_CAP_KILL", "CAP_KILL "})
        BOOST_TEST(!capabilityNumber(name).has_value(), name);
}

BOOST_AUTO_TEST_CASE(what_can_be_granted_is_granted_without_a_word) {
    const Capabilities wanted{{"CAP_KILL", "CAP_NET_RAW"},
                              {"CAP_KILL"},
                              {"CAP_KILL"},
                              {"CAP_KILL", "CAP_NET_RAW"},
                              {"CAP_KILL"}};
    const CapabilityPlan plan = planCapabilities(wanted, everything());
    BOOST_TEST(plan.warnings.empty());
    BOOST_TEST((plan.sets == CapabilitySets{.bounding = kKill | kNetRaw,
                                            .effective = kKill,
                                            .permitted = kKill | kNetRaw,
                                            .inheritable = kKill,
                                            .ambient = kKill}));
}

// Field report 16.
BOOST_AUTO_TEST_CASE(what_cannot_be_granted_is_a_warning_that_names_it) {
    Capabilities wanted;
    wanted.bounding = {"CAP_KILL", "CAP_PERFMON", "CAP_NOT_REAL"};
    wanted.effective = {"CAP_KILL", "CAP_SYS_TIME", "CAP_NOT_REAL"};
    wanted.permitted = {"CAP_KILL"};
    wanted.ambient = {"CAP_KILL"};
    CapabilitySets current = everything();
    current.bounding &= ~(1ULL << 38U);  // a kernel without CAP_PERFMON
    const CapabilityPlan plan = planCapabilities(wanted, current);
    BOOST_TEST(
        (plan.sets == CapabilitySets{.bounding = kKill, .effective = kKill, .permitted = kKill}));
    const std::vector<std::string> expected = {
        "capability CAP_NOT_REAL is not known and is ignored",
        "capability CAP_PERFMON cannot be granted in the bounding set and is left out",
        "capability CAP_SYS_TIME cannot be granted in the effective set and is left out",
        "capability CAP_KILL cannot be granted in the ambient set and is left out"};
    BOOST_TEST(plan.warnings == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(twice_is_once) {
    Capabilities wanted;
    wanted.permitted = {"CAP_KILL", "kill", "CAP_KILL"};
    const CapabilityPlan plan = planCapabilities(wanted, everything());
    BOOST_TEST(plan.warnings.empty());
    BOOST_TEST(plan.sets.permitted == kKill);
}

BOOST_AUTO_TEST_CASE(never_more_than_the_process_has) {
    Capabilities wanted;
    wanted.permitted = {"CAP_KILL", "CAP_SYS_TIME"};
    wanted.effective = wanted.permitted;
    CapabilitySets current = everything();
    current.permitted = kKill;
    const CapabilityPlan plan = planCapabilities(wanted, current);
    BOOST_TEST(plan.sets.permitted == kKill);
    BOOST_TEST((plan.sets.effective & kSysTime) == 0U);
    BOOST_TEST(plan.warnings.size() == 2U);
}

BOOST_AUTO_TEST_CASE(empty_lists_are_empty_sets) {
    const CapabilityPlan plan = planCapabilities({}, everything());
    BOOST_TEST((plan.sets == CapabilitySets{}));
    BOOST_TEST(plan.warnings.empty());
}

BOOST_AUTO_TEST_SUITE_END()
