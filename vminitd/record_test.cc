#include "vminitd/record.h"

#include <boost/test/unit_test.hpp>

#include "vminitd/create_request.h"

namespace arca::vminitd {

BOOST_AUTO_TEST_SUITE(record)

BOOST_AUTO_TEST_CASE(round_trip) {
    ContainerRecord record;
    record.init.id = "c";
    record.init.created = true;
    record.init.identity = {123, 456789};
    record.init.terminal = true;
    record.init.exit_code = 137;
    record.init.exited_at_ns = 99;
    record.cgroups = {{"memory", "/sys/fs/cgroup/memory/c", true}, {"", "/sys/fs/cgroup/c", false}};
    record.bundle = "/b \"x\" \xff";
    record.own_pid_namespace = true;
    record.resctrl = {"/sys/fs/resctrl/x", true, true, "/sys/fs/resctrl/x/mon_groups/c"};
    const auto read = parseContainerRecord(writeContainerRecord(record));
    BOOST_TEST_REQUIRE(read.has_value());
    BOOST_TEST(read->init.id == "c");
    BOOST_TEST(read->init.created);
    BOOST_TEST(read->init.identity.pid == 123);
    BOOST_TEST(read->init.identity.start_time_ticks == 456789U);
    BOOST_TEST(*read->init.exit_code == 137);
    BOOST_TEST((read->cgroups == record.cgroups));
    BOOST_TEST(read->own_pid_namespace);
    BOOST_TEST((read->resctrl == record.resctrl));
    record.resctrl = {};
    BOOST_TEST(parseContainerRecord(writeContainerRecord(record))->resctrl.path.empty());
}

BOOST_AUTO_TEST_CASE(broken_ones_are_errors) {
    for (const char* text : {"", "{", "[]", "{}", "{\"format\":1}", "{\"format\":\"x\"}", "null"}) {
        BOOST_TEST(!parseContainerRecord(text).has_value());
        BOOST_TEST(!parseProcessRecord(text).has_value());
    }
}

BOOST_AUTO_TEST_CASE(exec_file_names_are_short_and_distinct) {
    BOOST_TEST(execFileStem("abc") == "abc");
    const std::string a(200, 'x');
    const std::string b = a + "y";
    BOOST_TEST(execFileStem(a).size() < 64U);
    BOOST_TEST(execFileStem(a) != execFileStem(b));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(create_request)

BOOST_AUTO_TEST_CASE(both_layouts) {
    const auto now = readCreateFields(std::nullopt, " {\"a\":1}", "{\"bundle\":\"/b\"}");
    BOOST_TEST(now.configuration == " {\"a\":1}");
    BOOST_TEST(now.options == "{\"bundle\":\"/b\"}");
    BOOST_TEST(!now.has_runtime_path);
    const auto runtime = readCreateFields("/usr/bin/runc", "{}", std::nullopt);
    BOOST_TEST(runtime.has_runtime_path);
    BOOST_TEST(runtime.configuration == "{}");
    const auto old = readCreateFields("\n {\"a\":1}", "", std::nullopt);
    BOOST_TEST(old.configuration == "\n {\"a\":1}");
    BOOST_TEST(!old.has_runtime_path);
    BOOST_TEST(old.options.empty());
}

BOOST_AUTO_TEST_CASE(options) {
    const auto none = parseCreateOptions("");
    BOOST_TEST_REQUIRE(none.has_value());
    BOOST_TEST(!none->from_command);
    const auto some = parseCreateOptions(
        R"({"bundle":"/b","no_pivot":true,"preserve_fds":2,"cgroup":"x","later":1})");
    BOOST_TEST_REQUIRE(some.has_value());
    BOOST_TEST(some->from_command);
    BOOST_TEST(some->no_pivot);
    BOOST_TEST(some->preserve_fds == 2);
    for (const char* bad :
         {"{", "[]", "{\"bundle\":1}", "{\"bundle\":\"rel\"}", "{\"preserve_fds\":-1}", "7"}) {
        BOOST_TEST(!parseCreateOptions(bad).has_value());
    }
}

BOOST_AUTO_TEST_CASE(ids) {
    BOOST_TEST(!checkKey({"a", std::nullopt}).has_value());
    BOOST_TEST(checkKey({"a", "b"}).has_value());
    for (const char* bad : {"", ".", "..", "a/b", "../x", "a b", "\xc3\xa9"}) {
        BOOST_TEST(!checkKey({bad, "c"}).has_value());
        BOOST_TEST(!checkKey({"c", bad}).has_value());
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
