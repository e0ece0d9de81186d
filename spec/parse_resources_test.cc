#include <boost/test/unit_test.hpp>

#include "spec/test_config.h"

namespace arca::spec {
namespace {

Resources resources(std::string_view json) {
    auto result = parseResources(json);
    BOOST_TEST_REQUIRE(result.has_value(), (result ? "" : result.error().message()));
    return std::move(*result);
}

void checkResourceRefusals(const std::vector<Refusal>& table) {
    for (const auto& [json, message] : table) {
        BOOST_TEST_CONTEXT(json) {
            const auto result = parseResources(json);
            BOOST_TEST((result ? "" : result.error().message()) == message);
        }
    }
}

BOOST_AUTO_TEST_SUITE(parse_resources)

BOOST_AUTO_TEST_CASE(absent_stays_absent_and_zero_stays_zero) {
    const Resources none = resources("{}");
    BOOST_TEST(!none.memory.has_value());
    BOOST_TEST(!none.pidsLimit.has_value());
    const Resources zero = resources(R"({"memory": {"limit": 0, "swap": 0, "kernel": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        "pids": {"limit": 0}, "blockIO": {"weight": 0}})");
    BOOST_TEST(zero.memory->limit.value() == 0);
    BOOST_TEST(!zero.memory->reservation.has_value());
    BOOST_TEST(zero.cpu->period.value() == 0U);
    BOOST_TEST(zero.pidsLimit.value() == 0);
    BOOST_TEST(zero.blockIO->weight.value() == 0U);
}

// Field report 14.
BOOST_AUTO_TEST_CASE(memory_is_in_bytes_or_unlimited) {
    const Resources given = resources(R"({"memory": {"limit": 33554432, "swap": -1,
        "reservation": -1, "swappiness": 100, "disableOOMKiller": true,
        "checkBeforeUpdate": false}})");
    BOOST_TEST(given.memory->limit.value() == 33554432);
    BOOST_TEST(given.memory->swap.value() == -1);
    BOOST_TEST(given.memory->swappiness.value() == 100U);
    BOOST_TEST(given.memory->disableOOMKiller.value());
    BOOST_TEST(given.memory->checkBeforeUpdate.has_value());
    checkResourceRefusals({
        {R"({"memory": {"limit": -2}})", "/memory/limit: must be at least -1, is -2"},
        {R"({"memory": {"swap": -100}})", "/memory/swap: must be at least -1, is -100"},
        {R"({"memory": {"reservation": 9223372036854775808}})",
         "/memory/reservation: 9223372036854775808 does not fit int64"},
        {R"({"memory": {"limit": "1G"}})", "/memory/limit: must be a number, not a string"},
        {R"({"memory": {"limit": 1e9}})", "/memory/limit: must be an integer, not 1e9"},
        {R"({"memory": {"swappiness": 101}})", "/memory/swappiness: must be 0..100, is 101"},
        {R"({"memory": {"swappiness": -1}})", "/memory/swappiness: must not be negative, is -1"},
        {R"({"memory": []})", "/memory: must be an object, not an array"},
    });
}

BOOST_AUTO_TEST_CASE(cpu_values_have_the_kernels_ranges) {
    const Resources given = resources(R"({"cpu": {"shares": 1024, "quota": -1, "period": 100000,
        "burst": 5, "idle": 1, "cpus": "0-3", "realtimeRuntime": 950000}})");
    BOOST_TEST(given.cpu->quota.value() == -1);
    BOOST_TEST(given.cpu->burst.value() == 5U);
    BOOST_TEST(given.cpu->idle.value() == 1);
    checkResourceRefusals({
        {R"({"cpu": {"period": 999}})", "/cpu/period: must be 1000..1000000 us or 0, is 999"},
        {R"({"cpu": {"period": 1000001}})",
         "/cpu/period: must be 1000..1000000 us or 0, is 1000001"},
        {R"({"cpu": {"idle": 2}})", "/cpu/idle: must be 0..1, is 2"},
        {R"({"cpu": {"quota": 1000, "burst": 1001}})", "/cpu/burst: is above the quota of 1000 us"},
        {R"({"cpu": {"shares": -1}})", "/cpu/shares: must not be negative, is -1"},
    });
}

BOOST_AUTO_TEST_CASE(pids_limits_may_be_unlimited_or_unset) {
    BOOST_TEST(resources(R"({"pids": {"limit": -1}})").pidsLimit.value() == -1);
    BOOST_TEST(!resources(R"({"pids": {}})").pidsLimit.has_value());
    checkResourceRefusals(
        {{R"({"pids": {"limit": -2}})", "/pids/limit: must be at least -1, is -2"},
         {R"({"pids": 5})", "/pids: must be an object, not a number"}});
}

BOOST_AUTO_TEST_CASE(device_rules_default_to_all) {
    const Resources given = resources(R"({"devices": [
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": -1, "access": "rw"},
        {"allow": true, "type": ""}]})");
    BOOST_TEST(given.devices.at(0).type == 'a');
    BOOST_TEST(!given.devices[0].major.has_value());
    BOOST_TEST(given.devices.at(1).major.value() == 1);
    BOOST_TEST(!given.devices[1].minor.has_value());
    BOOST_TEST(given.devices.at(2).access.empty());
    checkResourceRefusals({
        {R"({"devices": [{"type": "c"}]})", "/devices/0/allow: is required"},
        {R"({"devices": [{"allow": true, "type": "p"}]})",
         "/devices/0/type: p is no device type; a, b and c are"},
        {R"({"devices": [{"allow": true, "access": "rx"}]})",
         "/devices/0/access: rx may only have the letters r, w and m"},
        {R"({"devices": [{"allow": true, "major": -2}]})",
         "/devices/0/major: must be -1..4294967295, is -2"},
    });
}

BOOST_AUTO_TEST_CASE(block_io_weights_and_rates_are_checked) {
    const Resources given = resources(R"({"blockIO": {"weight": 10, "leafWeight": 1000,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}]}})");
    BOOST_TEST(given.blockIO->weightDevice.at(0).weight.value() == 500U);
    BOOST_TEST(given.blockIO->throttleReadBpsDevice.at(0).rate == 1048576U);
    checkResourceRefusals({
        {R"({"blockIO": {"weight": 9}})", "/blockIO/weight: must be 10..1000 or 0, is 9"},
        {R"({"blockIO": {"weight": 1001}})", "/blockIO/weight: must be 10..1000 or 0, is 1001"},
        {R"({"blockIO": {"weight": 65536}})", "/blockIO/weight: 65536 does not fit uint16"},
        {R"({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}})",
         "/blockIO/weightDevice/0: must have at least one of weight and leafWeight"},
        {R"({"blockIO": {"weightDevice": [{"minor": 0, "weight": 10}]}})",
         "/blockIO/weightDevice/0/major: is required"},
        {R"({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0}]}})",
         "/blockIO/throttleWriteIOPSDevice/0/rate: is required"},
        {R"({"blockIO": {"throttleWriteBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}})",
         "/blockIO/throttleWriteBpsDevice/0/major: must be 0..4294967295, is -1"},
    });
}

BOOST_AUTO_TEST_CASE(huge_pages_have_a_size_with_a_unit) {
    for (const char* size : {"64KB", "2MB", "1GB", "512MB"}) {
        BOOST_TEST(resources(R"({"hugepageLimits": [{"pageSize": ")" + std::string(size) +
                             R"(", "limit": 1}]})")
                       .hugepageLimits.at(0)
                       .pageSize == size);
    }
    for (const char* size :
         {"", "2", "MB", "2M", "2mb", "02MB", "2TB", "2 MB", "-2MB", "2MBx", "B"}) {
        const auto result = parseResources(R"({"hugepageLimits": [{"pageSize": ")" +
                                           std::string(size) + R"(", "limit": 1}]})");
        BOOST_TEST(!result.has_value(), size);
    }
    checkResourceRefusals(
        {{R"({"hugepageLimits": [{"pagesize": "2MB", "limit": 1}]})",
          "/hugepageLimits/0/pageSize: is required"},
         {R"({"hugepageLimits": [{"pageSize": "2MB"}]})", "/hugepageLimits/0/limit: is required"}});
}

BOOST_AUTO_TEST_CASE(network_and_rdma_are_checked) {
    const Resources given = resources(R"({"network": {"classID": 1048577,
        "priorities": [{"name": "eth0", "priority": 500}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3}, "mlx4_0": {"hcaObjects": 0}}})");
    BOOST_TEST(given.network->classID.value() == 1048577U);
    BOOST_TEST(given.network->priorities.at(0).priority == 500U);
    BOOST_TEST(given.rdma.at("mlx4_0").hcaObjects.value() == 0U);
    checkResourceRefusals({
        {R"({"network": {"priorities": [{"name": "a b", "priority": 1}]}})",
         "/network/priorities/0/name: a b is no network interface name"},
        {R"({"network": {"priorities": [{"name": "lo"}]}})",
         "/network/priorities/0/priority: is required"},
        {R"({"rdma": {"x": {}}})", "/rdma/x: must have at least one of hcaHandles and hcaObjects"},
        {R"({"rdma": {"a b": {"hcaHandles": 1}}})",
         "/rdma/a b: a device name must not contain white space"},
    });
}

BOOST_AUTO_TEST_CASE(unified_keys_are_file_names) {
    BOOST_TEST(
        resources(R"({"unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:1 wbps=2"}})")
            .unified.size() == 2U);
    for (const char* key : {"../x", "a/b", ".", "..", ".hidden"}) {
        const auto result = parseResources(R"({"unified": {")" + std::string(key) + R"(": "1"}})");
        BOOST_TEST_REQUIRE(!result.has_value(), key);
        BOOST_TEST(result.error().message().ends_with(
            ": must be the name of a cgroup file, without '/' and no '.' in front"));
    }
    checkResourceRefusals(
        {{R"({"unified": {"": "1"}})", "/unified/: a name must not be empty"},
         {R"({"unified": {"a": 1}})", "/unified/a: must be a string, not a number"}});
}

BOOST_AUTO_TEST_CASE(inside_a_configuration_the_pointer_is_whole) {
    BOOST_TEST(complaint(config(R"({"linux": {"resources": {"memory": {"limit": -2}}}})")) ==
               "/linux/resources/memory/limit: must be at least -1, is -2");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec
