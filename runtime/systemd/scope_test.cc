#include "runtime/systemd/scope.h"

#include <boost/test/unit_test.hpp>

#include "runtime/systemd/variant_text.h"

namespace arca::runtime::systemd {
namespace {

std::string nameOf(const std::string& path) {
    const auto name = scopeName(path, "c1", "system.slice");
    return name ? name->slice + " " + name->unit : "error: " + name.error().message();
}

// The value of `name`; a text that no property has when it is not there.
Value valueOf(const Properties& properties, const std::string& name) {
    for (const Property& property : properties) {
        if (property.name == name) return property.value;
    }
    return std::string("no property " + name);
}

bool has(const Properties& properties, const std::string& name, const Value& value) {
    return valueOf(properties, name) == value;
}

constexpr uint64_t kInfinity = ~uint64_t{0};

}  // namespace

BOOST_AUTO_TEST_SUITE(systemd_scope)

BOOST_AUTO_TEST_CASE(names) {
    const struct {
        const char* path;
        const char* wanted;
    } rows[] = {
        {"system.slice:docker:abc", "system.slice docker-abc.scope"},
        {":docker:abc", "system.slice docker-abc.scope"},
        {"", "system.slice arca-runtime-c1.scope"},
        {"a-b-c.slice::abc", "a-b-c.slice abc.scope"},
        {"-.slice:p:n", "-.slice p-n.scope"},
    };
    for (const auto& row : rows) BOOST_TEST(nameOf(row.path) == row.wanted);
    for (const char* path : {"/a/b", "a:b", "/a.slice:b:c", "a.slice:b:", "a:b:c:d"}) {
        BOOST_TEST(nameOf(path).find("slice:prefix:name") != std::string::npos, path);
    }
    for (const char* slice :
         {"a.scope", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", ".slice"}) {
        const std::string found = nameOf(std::string(slice) + ":p:n");
        BOOST_TEST(found.find("invalid slice name") != std::string::npos, slice << ": " << found);
    }
    BOOST_TEST(nameOf("a.slice:p:b.slice").find("cannot be a slice") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(limits_of_v2) {
    spec::Resources res;
    res.memory.emplace();
    res.memory->limit = 64;
    res.memory->swap = 96;
    res.memory->reservation = 32;
    res.cpu.emplace();
    res.cpu->shares = 1024;
    res.cpu->quota = 50000;
    res.cpu->period = 200000;
    res.cpu->cpus = "0-2,9";
    res.cpu->mems = "0";
    res.pidsLimit = -1;
    res.blockIO.emplace();
    res.blockIO->weight = 1000;
    res.blockIO->throttleReadBpsDevice.push_back({8, 0, 5});
    const auto found = resourceProperties(res, true);
    BOOST_REQUIRE(found);
    BOOST_TEST(has(*found, "MemoryMax", uint64_t{64}));
    BOOST_TEST(has(*found, "MemorySwapMax", uint64_t{32}));
    BOOST_TEST(has(*found, "MemoryLow", uint64_t{32}));
    BOOST_TEST(has(*found, "CPUWeight", uint64_t{100}));
    BOOST_TEST(has(*found, "CPUQuotaPerSecUSec", uint64_t{250000}));
    BOOST_TEST(has(*found, "CPUQuotaPeriodUSec", uint64_t{200000}));
    BOOST_TEST(has(*found, "AllowedCPUs", std::vector<uint8_t>{7, 2}));
    BOOST_TEST(has(*found, "AllowedMemoryNodes", std::vector<uint8_t>{1}));
    BOOST_TEST(has(*found, "TasksMax", kInfinity));
    BOOST_TEST(has(*found, "IOWeight", uint64_t{10000}));
    BOOST_TEST(has(*found, "IOReadBandwidthMax", std::vector<DeviceLimit>{{"/dev/block/8:0", 5}}));
    BOOST_TEST(found->size() == 11U);
}

BOOST_AUTO_TEST_CASE(limits_of_v1_have_its_names) {
    spec::Resources res;
    res.memory.emplace();
    res.memory->limit = 64;
    res.memory->swap = 96;
    res.cpu.emplace();
    res.cpu->shares = 1024;
    res.cpu->quota = 33333;
    res.blockIO.emplace();
    res.blockIO->weight = 500;
    const auto found = resourceProperties(res, false);
    BOOST_REQUIRE(found);
    const Properties wanted = {{"MemoryLimit", uint64_t{64}},
                               {"CPUShares", uint64_t{1024}},
                               {"CPUQuotaPerSecUSec", uint64_t{340000}},
                               {"BlockIOWeight", uint64_t{500}}};
    BOOST_TEST((*found == wanted));
}

BOOST_AUTO_TEST_CASE(zero_and_absent_give_nothing) {
    spec::Resources res;
    res.memory.emplace();
    res.memory->limit = 0;
    res.cpu.emplace();
    res.cpu->quota = 0;
    res.cpu->shares = 0;
    res.pidsLimit = 0;
    BOOST_TEST(resourceProperties(res, true).value().empty());
}

BOOST_AUTO_TEST_CASE(unified_files_with_a_property_win) {
    spec::Resources res;
    res.memory.emplace();
    res.memory->limit = 64;
    res.unified = {{"memory.max", "48"},
                   {"memory.high", "max"},
                   {"cpu.max", "20000 40000"},
                   {"pids.max", "7"}};
    const auto found = resourceProperties(res, true);
    BOOST_REQUIRE(found);
    BOOST_TEST(has(*found, "MemoryMax", uint64_t{48}));
    BOOST_TEST(has(*found, "MemoryHigh", kInfinity));
    BOOST_TEST(has(*found, "CPUQuotaPerSecUSec", uint64_t{500000}));
    BOOST_TEST(has(*found, "TasksMax", uint64_t{7}));
}

BOOST_AUTO_TEST_CASE(idle_is_weight_zero) {
    spec::Resources res;
    res.cpu.emplace();
    res.cpu->idle = 1;
    res.cpu->shares = 1024;
    BOOST_TEST((resourceProperties(res, true).value() == Properties{{"CPUWeight", uint64_t{0}}}));
}

BOOST_AUTO_TEST_CASE(bad_cpu_lists) {
    for (const char* list : {"a", "2-1", "1-", "99999999", "-1"}) BOOST_TEST(!cpuMask(list), list);
    BOOST_TEST(cpuMask(" 8 ").value() == (std::vector<uint8_t>{0, 1}),
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(devices) {
    std::vector<spec::DeviceRule> rules(3);
    rules[1] = {true, 'c', 10, 229, "rw"};
    rules[2] = {true, 'b', 8, std::nullopt, ""};
    Properties found = deviceProperties(rules);
    BOOST_TEST(has(found, "DevicePolicy", std::string("strict")));
    const auto allowed = std::get<std::vector<DeviceAllow>>(valueOf(found, "DeviceAllow"));
    BOOST_TEST((allowed[allowed.size() - 2] == DeviceAllow{"/dev/char/10:229", "rw"}));
    BOOST_TEST((allowed.back() == DeviceAllow{"/dev/block/8:*", "rwm"}));
    rules[2] = {true, 'a', std::nullopt, std::nullopt, "rwm"};
    BOOST_TEST((deviceProperties(rules) == Properties{{"DevicePolicy", std::string("auto")}}));
}

BOOST_AUTO_TEST_CASE(annotations) {
    const struct {
        const char* name;
        const char* text;
        Property wanted;
    } rows[] = {
        {"CollectMode", "'inactive-or-failed'", {"CollectMode", std::string("inactive-or-failed")}},
        {"TimeoutStopSec", "5", {"TimeoutStopUSec", uint64_t{5'000'000}}},
        {"TimeoutStopSec", "0.5", {"TimeoutStopUSec", uint64_t{500'000}}},
        {"TimeoutStopUSec", "uint64 123456789", {"TimeoutStopUSec", uint64_t{123456789}}},
        {"SendSIGHUP", "true", {"SendSIGHUP", true}},
        {"After",
         "['a.service', \"b.service\"]",
         {"After", std::vector<std::string>{"a.service", "b.service"}}},
        {"After", "@as []", {"After", std::vector<std::string>{}}},
        {"Description", "'it\\'s'", {"Description", std::string("it's")}},
        {"CPUWeight", "uint64 77", {"CPUWeight", uint64_t{77}}},
        {"OOMScoreAdjust", "-5", {"OOMScoreAdjust", int32_t{-5}}},
    };
    for (const auto& row : rows) {
        const auto found =
            annotationProperties({{std::string("org.systemd.property.") + row.name, row.text}});
        BOOST_TEST((found && *found == Properties{row.wanted}), row.name << " " << row.text);
    }
    BOOST_TEST(annotationProperties({{"org.example", "x"}}).value().empty());
    for (const char* text :
         {"", "x", "'open", "uint64 -1", "5 6", "['a' 'b']", "['a',", "uint8 5", "true false"}) {
        BOOST_TEST(!annotationProperties({{"org.systemd.property.After", text}}), text);
    }
    for (const char* name : {"", "Ab", "A.B", "Af7er"}) {
        BOOST_TEST(!annotationProperties({{std::string("org.systemd.property.") + name, "true"}}),
                   name);
    }
    BOOST_TEST(!annotationProperties({{"org.systemd.property.TimeoutStopSec", "'5'"}}));
}

BOOST_AUTO_TEST_CASE(annotations_win_over_the_rest) {
    spec::Spec spec;
    spec.linux.resources.emplace();
    spec.linux.resources->pidsLimit = 5;
    spec.annotations["org.systemd.property.TasksMax"] = "uint64 9";
    const auto found = scopeProperties(spec, "c1", "a.slice", true);
    BOOST_REQUIRE(found);
    BOOST_TEST(has(*found, "TasksMax", uint64_t{9}));
    BOOST_TEST(has(*found, "Slice", std::string("a.slice")));
    BOOST_TEST(has(*found, "Delegate", true));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::runtime::systemd
