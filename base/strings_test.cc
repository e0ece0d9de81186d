#include "base/strings.h"

#include <boost/test/unit_test.hpp>
#include <cstdint>
#include <utility>

namespace arca::base {
namespace {

using Parts = std::vector<std::string_view>;

template <typename Text>
concept CanBeSplit = requires(Text&& text) {
    split(std::forward<Text>(text), ',');
};
static_assert(CanBeSplit<std::string&> && CanBeSplit<const std::string&>);
static_assert(CanBeSplit<std::string_view> && CanBeSplit<const char*>);
static_assert(!CanBeSplit<std::string>);  // its parts would outlive it

BOOST_AUTO_TEST_SUITE(strings)

BOOST_AUTO_TEST_CASE(split_keeps_empty_parts) {
    BOOST_TEST((split("a::b", ':') == Parts{"a", "", "b"}));
    BOOST_TEST((split("", ':') == Parts{""}));
    BOOST_TEST((split(":", ':') == Parts{"", ""}));
    BOOST_TEST((split("abc", ':') == Parts{"abc"}));
}

BOOST_AUTO_TEST_CASE(trim_takes_white_space_at_both_ends_only) {
    BOOST_TEST(trim(" \t a b\r\n") == "a b");
    BOOST_TEST(trim("\n").empty());
    BOOST_TEST(trim("").empty());
}

BOOST_AUTO_TEST_CASE(join_is_the_opposite_of_split) {
    BOOST_TEST(join({"a", "", "b"}, ", ") == "a, , b");
    BOOST_TEST(join({}, ",").empty());
}

BOOST_AUTO_TEST_CASE(case_changes_are_for_ascii_only) {
    BOOST_TEST(toUpper("az-\xc3\xa9") == "AZ-\xc3\xa9");
    BOOST_TEST(toLower("AZ[\xc3\x89") == "az[\xc3\x89");
}

BOOST_AUTO_TEST_CASE(numbers_are_whole_or_nothing) {
    BOOST_TEST(parseNumber<int>("-12").value() == -12);
    BOOST_TEST(parseNumber<unsigned>("ff", 16).value() == 255U);
    for (const char* text : {"", " 1", "1 ", "+1", "0x1", "1.0", "a", "-"}) {
        BOOST_TEST(!parseNumber<int>(text).has_value(), text);
    }
    BOOST_TEST(!parseNumber<uint8_t>("256").has_value());
    BOOST_TEST(!parseNumber<unsigned>("-1").has_value());
    BOOST_TEST(parseNumber<uint64_t>("18446744073709551615").value() == UINT64_MAX);
    BOOST_TEST(!parseNumber<uint64_t>("18446744073709551616").has_value());
}

BOOST_AUTO_TEST_CASE(printable_leaves_no_byte_that_moves_a_cursor) {
    BOOST_TEST(printable("a\n\x1b[1m\x7f") == "a\\x0a\\x1b[1m\\x7f");
    BOOST_TEST(printable(std::string_view("\0x", 2)) == "\\x00x");
    BOOST_TEST(printable("\xc3\xa9") == "\xc3\xa9");
}

BOOST_AUTO_TEST_CASE(utf8_is_strict) {
    for (const char* text : {"", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                             "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
        BOOST_TEST(isUtf8(text), printable(text));
    }
    // Overlong, surrogates, above U+10FFFF, cut short, a continuation alone.
    for (const char* text : {"\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80",
                             "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3",
                             "\xe2\x82", "\x80", "\xff", "\xe2\x28\xa1"}) {
        BOOST_TEST(!isUtf8(text));
        BOOST_TEST(utf8SequenceLength(text) == 0U);
    }
    BOOST_TEST(utf8SequenceLength("\xe2\x82\xac-") == 3U);
    BOOST_TEST(utf8SequenceLength("") == 0U);
}

BOOST_AUTO_TEST_CASE(clean_paths_have_no_detours) {
    const std::vector<std::pair<const char*, const char*>> cases = {
        {"", "."},          {"/", "/"},        {"//a//b/", "/a/b"},
        {"/a/./b", "/a/b"}, {"/a/../b", "/b"}, {"/../../a", "/a"},
        {"a/..", "."},      {"../a", "../a"},  {"a/../../b", "../b"},
        {"./a", "a"},
    };
    for (const auto& [path, wanted] : cases) BOOST_TEST(cleanPath(path) == wanted, path);
}

BOOST_AUTO_TEST_CASE(relative_paths_are_joined_to_the_base) {
    BOOST_TEST(absolutePath("/b", "rootfs") == "/b/rootfs");
    BOOST_TEST(absolutePath("/b", "../x") == "/x");
    BOOST_TEST(absolutePath("/b", "/x/") == "/x");
    BOOST_TEST(absolutePath("/b", "") == "/b");
}

// Values of the FNV authors' own table.
BOOST_AUTO_TEST_CASE(fnv1a_is_the_published_function) {
    BOOST_TEST(fnv1aHex("") == "cbf29ce484222325");
    BOOST_TEST(fnv1aHex("a") == "af63dc4c8601ec8c");
    BOOST_TEST(fnv1aHex("foobar") == "85944171f73967e8");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
