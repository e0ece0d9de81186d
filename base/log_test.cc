#include "base/log.h"

#include <boost/test/unit_test.hpp>

#include "base/strings.h"
#include "base/temp_dir.h"

namespace arca::base::log {
namespace {

constexpr char kTime[] = "2026-01-02T03:04:05Z";

std::string json(std::string_view message) {
    return formatLine(Format::kJson, Level::kError, message, kTime);
}

BOOST_AUTO_TEST_SUITE(log)

BOOST_AUTO_TEST_CASE(lines_have_the_known_forms) {
    BOOST_TEST(formatLine(Format::kText, Level::kWarning, "a b", kTime) ==
               "time=\"2026-01-02T03:04:05Z\" level=warning msg=\"a b\"");
    BOOST_TEST(formatLine(Format::kConsole, Level::kInfo, "a\nb", "2026-01-02T03:04:05.678Z",
                          "vminitd") == "2026-01-02T03:04:05.678Z info vminitd: a\\x0ab");
    BOOST_TEST(json("a b") == R"({"level":"error","msg":"a b","time":"2026-01-02T03:04:05Z"})");
}

BOOST_AUTO_TEST_CASE(a_message_cannot_break_the_line_or_the_json) {
    BOOST_TEST(
        json("a\"b\\c\nd\te\x01\x7f") ==
        R"({"level":"error","msg":"a\"b\\c\nd\te\u0001\u007f","time":"2026-01-02T03:04:05Z"})");
    BOOST_TEST(
        json("\xff\xc3\xa9") ==
        "{\"level\":\"error\",\"msg\":\"\\ufffd\xc3\xa9\",\"time\":\"2026-01-02T03:04:05Z\"}");
}

BOOST_AUTO_TEST_CASE(a_file_gets_lines_of_the_level_and_above) {
    const TempDir dir;
    BOOST_TEST_REQUIRE(setUp({dir.path() + "/log", Format::kJson, Level::kInfo}).has_value());
    BOOST_TEST(hasFile());
    debug("hidden");
    info("one");
    error("two");
    const std::string text = readFile(dir.path() + "/log").value();
    const auto lines = split(text, '\n');
    BOOST_TEST_REQUIRE(lines.size() == 3U);
    BOOST_TEST(lines[0].starts_with(R"({"level":"info","msg":"one","time":")"));
    BOOST_TEST(lines[1].starts_with(R"({"level":"error","msg":"two","time":")"));
    BOOST_TEST(lines[2].empty());
}

BOOST_AUTO_TEST_CASE(a_log_that_cannot_be_opened_is_an_error) {
    const auto result = setUp({"/no/such/log", Format::kText, Level::kInfo});
    BOOST_TEST_REQUIRE(!result.has_value());
    BOOST_TEST((result.error().code() == Code::kNotFound));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base::log
