#include "runtime/units.h"

#include <boost/test/unit_test.hpp>

namespace arca::runtime {
namespace {

BOOST_AUTO_TEST_SUITE(units)

BOOST_AUTO_TEST_CASE(sizes) {
    const std::pair<const char*, int64_t> good[] = {{"0", 0},
                                                    {"32", 32},
                                                    {"32b", 32},
                                                    {"32k", 32768},
                                                    {"32K", 32768},
                                                    {"32kb", 32768},
                                                    {"32KiB", 32768},
                                                    {"32 kb", 32768},
                                                    {"1.5m", 1572864},
                                                    {"2G", 2147483648},
                                                    {"1t", 1099511627776},
                                                    {"-1", -1},
                                                    {"9007199254740993", 9007199254740993}};
    for (const auto& [text, bytes] : good) {
        BOOST_TEST_CONTEXT(text) {
            BOOST_TEST(parseBytes(text).value() == bytes);
        }
    }
    for (const char* text : {"", "k", "-2", "-1k", "1x", "1kk", "1bb", "0x10", "1e3", "1..2",
                             "99999999999999999999", "9223372036854775808", " 1", "1k "}) {
        BOOST_TEST_CONTEXT(text) {
            const bool trimmed_tail = std::string_view(text) == "1k ";
            BOOST_TEST(parseBytes(text).has_value() == trimmed_tail);
        }
    }
}

BOOST_AUTO_TEST_CASE(durations) {
    using std::chrono::nanoseconds;
    const std::pair<const char*, int64_t> good[] = {{"5s", 5'000'000'000},
                                                    {"300ms", 300'000'000},
                                                    {"1m30s", 90'000'000'000},
                                                    {"1.5h", 5400'000'000'000},
                                                    {"-1s", -1'000'000'000},
                                                    {"+2us", 2000},
                                                    {"0", 0},
                                                    {"0s", 0},
                                                    {"10ns", 10},
                                                    {"1\xc2\xb5s", 1000},
                                                    {".5s", 500'000'000},
                                                    {"1.s", 1'000'000'000}};
    for (const auto& [text, ns] : good) {
        BOOST_TEST_CONTEXT(text) {
            const auto duration = parseDuration(text);
            BOOST_TEST_REQUIRE(duration.has_value());
            BOOST_TEST(duration->count() == ns);
        }
    }
    for (const char* text : {"", "5", "s", "-", "1x", "1s2", "--1s", "1 s", ".s", "9999999999h"}) {
        BOOST_TEST_CONTEXT(text) {
            BOOST_TEST(!parseDuration(text).has_value());
        }
    }
}

// Field report 8: numbers only, and no half may be empty.
BOOST_AUTO_TEST_CASE(users) {
    BOOST_TEST(parseUser("1000")->uid == 1000U);
    BOOST_TEST(!parseUser("1000")->gid.has_value());
    BOOST_TEST(*parseUser("502:20")->gid == 20U);
    BOOST_TEST(parseUser("0:0")->uid == 0U);
    BOOST_TEST(parseUser("4294967294")->uid == 4294967294U);
    for (const char* text : {"", "1000:", ":5", ":", "-1", "4294967295", "4294967296", "1:2:3",
                             "app", "1000:staff", "0x1", " 1", "+1", "1:4294967295"}) {
        BOOST_TEST_CONTEXT(text) {
            const auto user = parseUser(text);
            BOOST_TEST_REQUIRE(!user.has_value());
            BOOST_TEST((user.error().code() == base::Code::kInvalidArgument));
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
