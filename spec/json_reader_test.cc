#include "spec/json_reader.h"

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "spec/json_writer.h"

namespace arca::spec {
namespace {

std::string syntaxError(std::string_view text, JsonUtf8 utf8 = JsonUtf8::kStrict) {
    const auto reader = JsonReader::parse(text, utf8);
    return reader ? "" : reader.error().message();
}

// The string that the document `text` is.
std::string stringOf(std::string_view text, JsonUtf8 utf8 = JsonUtf8::kStrict) {
    auto reader = JsonReader::parse(text, utf8);
    BOOST_TEST_REQUIRE(reader.has_value(), syntaxError(text, utf8));
    return std::string(reader->root().text());
}

// The number that the document `text` is, or the complaint.
template <typename T>
std::string numberOf(std::string_view text) {
    auto reader = JsonReader::parse(text, JsonUtf8::kStrict);
    BOOST_TEST_REQUIRE(reader.has_value());
    T number{};
    decode(reader->root(), number);
    return reader->failed() ? reader->takeFailure().message() : std::to_string(number);
}

std::string nested(size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
}

BOOST_AUTO_TEST_SUITE(json_reader)

BOOST_AUTO_TEST_CASE(errors_say_where_and_why_in_one_line) {
    const std::vector<std::pair<std::string_view, std::string_view>> cases = {
        {"", "byte 0: expected a value, found the end"},
        {"  ", "byte 2: expected a value, found the end"},
        {"{", "byte 1: expected a property name in double quotes, found the end"},
        {"{\"a\" 1}", "byte 5: expected ':', found '1'"},
        {"{\"a\":1 \"b\"}", "byte 7: expected ',' or '}', found '\"'"},
        {"{\"a\":1,}", "byte 7: expected a property name in double quotes, found '}'"},
        {"{a:1}", "byte 1: expected a property name in double quotes, found 'a'"},
        {"[1,]", "byte 3: expected a value, found ']'"},
        {"[1 2]", "byte 3: expected ',' or ']', found '2'"},
        {"[1", "byte 2: expected ',' or ']', found the end"},
        {"nul", "byte 0: expected a value, found 'n'"},
        {"True", "byte 0: expected a value, found 'T'"},
        {"NaN", "byte 0: expected a value, found 'N'"},
        {"{} x", "byte 3: text after the document"},
        {"{}{}", "byte 2: text after the document"},
        {"\"abc", "byte 0: the string has no end"},
        {"\"a\nb\"", "byte 2: a control character in a string must be escaped"},
        {"\"a\\x\"", "byte 2: unknown escape in a string"},
        {"\"\\u12g4\"", "byte 1: \\u needs four hexadecimal digits"},
        {"\"\\ud800\"", "byte 1: half of a surrogate pair"},
        {"\"\\ud800\\u0041\"", "byte 1: half of a surrogate pair"},
        {"\"\\udc00\"", "byte 1: half of a surrogate pair"},
        {"\"\xff\"", "byte 0: the string is not UTF-8"},
        {"\"\\n\xc3\"", "byte 0: the string is not UTF-8"},
        {"01", "byte 0: a number must not begin with 0"},
        {"-", "byte 1: expected a digit, found the end"},
        {"1.", "byte 2: expected a digit after '.', found the end"},
        {"1e+", "byte 3: expected a digit in the exponent, found the end"},
        {"+1", "byte 0: expected a value, found '+'"},
        {".5", "byte 0: expected a value, found '.'"},
        {"\xef\xbb\xbf{}", "byte 0: expected a value, found a byte above 0x7f"},
        {"// c\n{}", "byte 0: expected a value, found '/'"},
        {"\x01", "byte 0: expected a value, found '\\x01'"},
    };
    for (const auto& [text, message] : cases) {
        BOOST_TEST_CONTEXT(base::printable(text)) {
            BOOST_TEST(syntaxError(text) == "invalid JSON at " + std::string(message));
        }
    }
    BOOST_TEST(syntaxError(std::string_view("\0", 1)) ==
               "invalid JSON at byte 0: expected a value, found '\\x00'");
}

BOOST_AUTO_TEST_CASE(the_same_is_accepted_as_by_another_parser) {
    for (const char* text : {"{}",
                             "[]",
                             "null",
                             "true",
                             "false",
                             "0",
                             "-0",
                             "-1.5e-3",
                             "1E5",
                             "\"\"",
                             "[[],{}]",
                             " \t\r\n{ \"a\" : [ 1 , 2 ] }\n",
                             "{\"\":1}",
                             "\"\\u0000\"",
                             "\"\x7f\"",
                             "[,]",
                             "[1,,2]",
                             "{\"a\":}",
                             "{\"a\"}",
                             "[1}",
                             "{1:2}",
                             "'a'",
                             "\"\t\"",
                             "--1",
                             "1..2",
                             "0x10",
                             "1e",
                             "[\"\\",
                             "tru",
                             "nulll",
                             "\"\\uD83D\\uDE00\"",
                             "\"\\uD83D\"",
                             "{\"a\":1,\"a\":2}"}) {
        BOOST_TEST(syntaxError(text).empty() == nlohmann::json::accept(text), text);
    }
}

BOOST_AUTO_TEST_CASE(escapes_become_what_they_mean) {
    BOOST_TEST(stringOf(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
    BOOST_TEST(stringOf(R"("\u0041\u00e9\u20AC\ud83d\ude00")") ==
               "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    BOOST_TEST(stringOf(R"("a\nb\nc")") == "a\nb\nc");
    BOOST_TEST(stringOf("\"\\\"\xc3\xa9\\\"\"") == "\"\xc3\xa9\"");
}

BOOST_AUTO_TEST_CASE(raw_bytes_are_kept_where_that_is_asked_for) {
    BOOST_TEST(stringOf("\"a\xff\\n\xc3\"", JsonUtf8::kRaw) == "a\xff\n\xc3");
}

BOOST_AUTO_TEST_CASE(depth_size_and_number_of_values_have_limits) {
    BOOST_TEST(syntaxError(nested(kMaxJsonDepth)).empty());
    BOOST_TEST(syntaxError(nested(kMaxJsonDepth + 1)) ==
               "invalid JSON at byte 64: nested deeper than 64 levels");
    BOOST_TEST(!syntaxError(std::string(1000000, '[')).empty());
    BOOST_TEST(syntaxError(std::string(kMaxConfigBytes + 1, ' ')) ==
               "larger than the limit of 10485760 bytes");
    std::string many = "[0";
    for (size_t i = 2; i < kMaxJsonValues; ++i) many += ",0";
    BOOST_TEST(syntaxError(many + "]").empty());
    BOOST_TEST(syntaxError(many + ",0]").ends_with("more than 1048576 values"));
}

BOOST_AUTO_TEST_CASE(integers_are_exact_or_refused) {
    BOOST_TEST(numberOf<uint64_t>("18446744073709551615") == "18446744073709551615");
    BOOST_TEST(numberOf<uint64_t>("18446744073709551616") ==
               "the document 18446744073709551616 does not fit uint64");
    BOOST_TEST(numberOf<int64_t>("-9223372036854775808") == "-9223372036854775808");
    BOOST_TEST(numberOf<int64_t>("-0") == "0");
    BOOST_TEST(numberOf<uint16_t>("65536") == "the document 65536 does not fit uint16");
    BOOST_TEST(numberOf<int32_t>("2147483648") == "the document 2147483648 does not fit int32");
    BOOST_TEST(numberOf<uint32_t>("-1") == "the document must not be negative, is -1");
    BOOST_TEST(numberOf<uint32_t>("1.0") == "the document must be an integer, not 1.0");
    BOOST_TEST(numberOf<uint32_t>("1e3") == "the document must be an integer, not 1e3");
    BOOST_TEST(numberOf<uint32_t>("-1.5") == "the document must be an integer, not -1.5");
    BOOST_TEST(numberOf<uint32_t>("\"1\"") == "the document must be a number, not a string");
}

BOOST_AUTO_TEST_CASE(pointers_name_the_place_and_are_escaped) {
    auto reader = JsonReader::parse(R"({"a/b~c\n": [0, {"x": true}]})", JsonUtf8::kStrict);
    BOOST_TEST_REQUIRE(reader.has_value());
    const JsonValue list = JsonObject(reader->root()).find("a/b~c\n");
    const JsonValue x = JsonObject(list.element(1)).find("x");
    BOOST_TEST(x.pointer() == "/a~1b~0c\\x0a/1/x");
    BOOST_TEST(reader->root().pointer().empty());
}

BOOST_AUTO_TEST_CASE(the_first_failure_stays) {
    auto reader = JsonReader::parse(R"({"a": 1, "b": 2})", JsonUtf8::kStrict);
    BOOST_TEST_REQUIRE(reader.has_value());
    const JsonObject object(reader->root());
    std::string text = "before";
    object.get("a", text);
    object.fail("b", "is wrong too");
    object.missing("c");
    BOOST_TEST(reader->takeFailure().message() == "/a: must be a string, not a number");
    BOOST_TEST(text == "before");
}

BOOST_AUTO_TEST_CASE(null_is_absent_and_the_last_of_two_counts) {
    auto reader =
        JsonReader::parse(R"({"a": null, "b": 1, "b": 2, "c": 3, "c": null})", JsonUtf8::kStrict);
    BOOST_TEST_REQUIRE(reader.has_value());
    const JsonObject object(reader->root());
    int b = 0;
    int c = 0;
    BOOST_TEST(!object.find("a").exists());
    BOOST_TEST(object.get("b", b));
    BOOST_TEST(b == 2);
    BOOST_TEST(!object.get("c", c));
    BOOST_TEST(!reader->failed());
}

BOOST_AUTO_TEST_CASE(shown_text_is_short_and_clean) {
    BOOST_TEST(shown("") == "\"\"");
    BOOST_TEST(shown("a\n") == "a\\x0a");
    BOOST_TEST(shown(std::string(65, 'a')) == std::string(64, 'a') + "...");
    // Never half of a character.
    BOOST_TEST(shown(std::string(63, 'a') + "\xc3\xa9" + "b") == std::string(63, 'a') + "...");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(json_writer)

BOOST_AUTO_TEST_CASE(commas_stand_between_and_only_between) {
    JsonWriter out;
    out.beginObject();
    put(out, "a", std::vector<int>{1, 2});
    put(out, "b", std::vector<int>{});
    put(out, "c", std::string("x,[{:"));
    out.name("d");
    out.beginArray();
    out.beginObject();
    out.endObject();
    out.boolean(false);
    out.endArray();
    out.endObject();
    BOOST_TEST(out.take() == R"({"a":[1,2],"b":[],"c":"x,[{:","d":[{},false]})");
}

BOOST_AUTO_TEST_CASE(every_byte_is_read_back) {
    std::string all;
    for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
    JsonWriter out;
    out.string(all);
    BOOST_TEST(stringOf(out.take(), JsonUtf8::kRaw) == all);
}

BOOST_AUTO_TEST_CASE(strict_text_is_utf8) {
    JsonWriter out(JsonUtf8::kStrict);
    out.string("a\xff\xc3\xa9\xe2\x82");
    const std::string text = out.take();
    BOOST_TEST(text == "\"a\\ufffd\xc3\xa9\\ufffd\\ufffd\"");
    BOOST_TEST(nlohmann::json::accept(text));
}

BOOST_AUTO_TEST_CASE(indenting_leaves_strings_and_empty_brackets_alone) {
    BOOST_TEST(indentJson(R"({"a":[1,"x,{\"[\\"],"b":{},"c":[]})", "  ") ==
               "{\n  \"a\": [\n    1,\n    \"x,{\\\"[\\\\\"\n  ],\n  \"b\": {},\n  \"c\": []\n}\n");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::spec
