#include "runtime/listing.h"

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cstdint>
#include <ctime>

namespace arca::runtime {
namespace {

ListEntry someEntry() {
    ListEntry entry;
    entry.record.id = "c1";
    entry.record.init.pid = 4242;
    entry.record.bundle = "/b/c1";
    entry.record.rootfs = "/b/c1/rootfs";
    entry.record.created = "2026-01-02T03:04:05.678901234Z";
    entry.record.oci_version = "1.2.1";
    entry.status = Status::kRunning;
    return entry;
}

BOOST_AUTO_TEST_SUITE(listing)

BOOST_AUTO_TEST_CASE(state_is_byte_for_byte_what_callers_parse) {
    ListEntry entry = someEntry();
    entry.record.annotations = {{"k", "v"}};
    BOOST_TEST(stateJson(entry) == R"({
  "ociVersion": "1.2.1",
  "id": "c1",
  "pid": 4242,
  "status": "running",
  "bundle": "/b/c1",
  "rootfs": "/b/c1/rootfs",
  "created": "2026-01-02T03:04:05.678901234Z",
  "annotations": {
    "k": "v"
  },
  "owner": ""
})");
}

BOOST_AUTO_TEST_CASE(a_stopped_container_has_pid_0_and_no_empty_annotations) {
    ListEntry entry = someEntry();
    entry.status = Status::kStopped;
    const std::string json = stateJson(entry);
    BOOST_TEST(json.find("\"pid\": 0,") != std::string::npos);
    BOOST_TEST(json.find("\"status\": \"stopped\"") != std::string::npos);
    BOOST_TEST(json.find("annotations") == std::string::npos);
}

BOOST_AUTO_TEST_CASE(processes_as_a_table) {
    constexpr time_t kNow = 1'800'000'000;
    const ProcessRow init{1, 0, 0, "", kNow - 100, 1500, "sleep 600"};
    const ProcessRow shell{12345, 1, 1000, "pts/0", kNow - time_t{400} * 86400, 90061000, "-sh"};
    tm then{};
    const time_t began = kNow - 100;
    BOOST_TEST_REQUIRE(::localtime_r(&began, &then) != nullptr);
    char clock[8];
    BOOST_TEST(std::strftime(clock, sizeof clock, "%H:%M", &then) == 5U);
    BOOST_TEST(processTable({init, shell}, kNow) ==
               "UID          PID    PPID  C STIME TTY          TIME CMD\n"
               "root           1       0  1 " +
                   std::string(clock) +
                   " ?        00:00:01 sleep 600\n"
                   "1000       12345       1  0  2025 pts/0    1-01:01:01 -sh\n");
    BOOST_TEST(processTable({}, kNow) ==
               "UID          PID    PPID  C STIME TTY          TIME CMD\n");
}

BOOST_AUTO_TEST_CASE(a_table_of_what_a_hostile_guest_says_stays_a_table) {
    constexpr time_t kNow = 1'800'000'000;
    const std::string table = processTable(
        {{-1, -1, ~0U, "\x1b[2Jpts/0", INT64_MIN, ~uint64_t{0}, "a\nroot 1 \x1b[2J\xff"},
         {1, 1, 1, std::string(1000, 't'), INT64_MAX, 0, ""}},
        kNow);
    BOOST_TEST(std::count(table.begin(), table.end(), '\n') == 3);
    BOOST_TEST(table.find('\x1b') == std::string::npos);
}

BOOST_AUTO_TEST_CASE(list_as_json) {
    BOOST_TEST(listJson({}) == "null\n");
    ListEntry entry = someEntry();
    entry.owner_name = "root";
    BOOST_TEST(listJson({entry}) ==
               R"([{"ociVersion":"1.2.1","id":"c1","pid":4242,"status":"running",)"
               R"("bundle":"/b/c1","rootfs":"/b/c1/rootfs",)"
               R"("created":"2026-01-02T03:04:05.678901234Z","owner":"root"}])"
               "\n");
}

BOOST_AUTO_TEST_CASE(list_as_a_table) {
    BOOST_TEST(listTable({}) ==
               "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    ListEntry entry = someEntry();
    entry.record.id = "a-longer-id";
    entry.record.created = "2026-01-02T03:04:05Z";
    entry.owner_name = "#77";
    BOOST_TEST(listTable({entry}) ==
               "ID            PID         STATUS      BUNDLE      CREATED                OWNER\n"
               "a-longer-id   4242        running     /b/c1       2026-01-02T03:04:05Z   #77\n");
}

BOOST_AUTO_TEST_CASE(pids) {
    BOOST_TEST(pidsJson({}) == "null\n");
    BOOST_TEST(pidsJson({1}) == "[1]\n");
    BOOST_TEST(pidsJson({4242, 4243}) == "[4242,4243]\n");
}

BOOST_AUTO_TEST_CASE(ps_lines_are_chosen_by_the_pid_column) {
    const char* output =
        "UID          PID    PPID CMD\n"
        "root           1       0 init 42\n"
        "root          42       1 sleep 1\n"
        "root         420      42 sh\n";
    BOOST_TEST(filterPs(output, {42, 7}).value() ==
               "UID          PID    PPID CMD\nroot          42       1 sleep 1\n");
    BOOST_TEST(filterPs("PID\n42\n", {42}).value() == "PID\n42\n");
    BOOST_TEST(filterPs("UID CMD\nroot x\n", {42}).error().message() ==
               "couldn't find PID field in ps output");
    BOOST_TEST(!filterPs("", {42}).has_value());
    BOOST_TEST(!filterPs("PID CMD\nx y\n", {42}).has_value());
}

BOOST_AUTO_TEST_CASE(owners_have_names_or_numbers) {
    const char* passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1000::/:/bin/sh\n";
    BOOST_TEST(ownerName(0, passwd) == "root");
    BOOST_TEST(ownerName(1000, passwd) == "app");
    BOOST_TEST(ownerName(100, passwd) == "#100");
    BOOST_TEST(ownerName(0, "") == "#0");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
