#include "base/signals.h"

#include <boost/test/unit_test.hpp>
#include <csignal>

namespace arca::base {
namespace {

BOOST_AUTO_TEST_SUITE(signals)

// Field report 5.
BOOST_AUTO_TEST_CASE(names_and_numbers_are_accepted) {
    const std::vector<std::pair<const char*, int>> cases = {
        {"SIGRTMIN+3", 37}, {"rtmin+3", 37}, {"RTMAX-1", 63}, {"37", 37},       {"term", 15},
        {"SigTerm", 15},    {"TERM", 15},    {"KILL", 9},     {"SIGHUP", 1},    {"9", 9},
        {"RTMIN", 34},      {"RTMAX", 64},   {"RTMIN+0", 34}, {"RTMIN+30", 64}, {"RTMAX-30", 34},
        {"64", 64},         {"0", 0},        {"IOT", 6},      {"poll", 29},     {"cld", 17},
        {"007", 7},
    };
    for (const auto& [text, number] : cases) {
        const auto result = parseSignal(text);
        BOOST_TEST_REQUIRE(result.has_value(), text);
        BOOST_TEST(*result == number, text);
    }
}

BOOST_AUTO_TEST_CASE(everything_else_is_unknown) {
    for (const char* text : {"SIGFOO",  "65",      "-1",     "-0",          "+1",       "RTMIN99",
                             "",        "TERM9",   "SIG",    "SIGSIGTERM",  "RTMIN+31", "RTMAX-31",
                             "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+-1",    "RTMIN+ 1", " TERM",
                             "TERM ",   "SIG9",    "1e1",    "99999999999", "RTMI"}) {
        const auto result = parseSignal(text);
        BOOST_TEST_REQUIRE(!result.has_value(), text);
        BOOST_TEST((result.error().code() == Code::kInvalidArgument));
        BOOST_TEST(result.error().message() == "unknown signal \"" + std::string(text) + "\"");
    }
}

BOOST_AUTO_TEST_CASE(each_number_has_a_name_that_parses_back) {
    BOOST_TEST(signalName(15) == "SIGTERM");
    BOOST_TEST(signalName(6) == "SIGABRT");
    BOOST_TEST(signalName(37) == "SIGRTMIN+3");
    BOOST_TEST(signalName(32) == "32");
    for (int number = 1; number <= 64; ++number) {
        BOOST_TEST(parseSignal(signalName(number)).value() == number);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
