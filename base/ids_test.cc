#include "base/ids.h"

#include <boost/test/unit_test.hpp>
#include <clocale>
#include <string>

#include "base/strings.h"

namespace arca::base {
namespace {

BOOST_AUTO_TEST_SUITE(ids)

BOOST_AUTO_TEST_CASE(letters_digits_and_four_signs_are_accepted) {
    for (const char* id : {"a", "0", "..0", "...", "ok_1.2+3-", "-x", "ABCxyz", "_"}) {
        BOOST_TEST(validateId(id).has_value(), id);
    }
    BOOST_TEST(validateId(std::string(kMaxIdLength, 'a')).has_value());
}

// Field report 17.
BOOST_AUTO_TEST_CASE(what_could_leave_the_folder_is_refused) {
    for (const char* id : {"", ".", "..", "../x", "a/b", "/", "a b", "a\n", "\xc3\xa9", "a\\b",
                           "a:b", "@local", "a*", "\x7f"}) {
        const auto result = validateId(id);
        BOOST_TEST_REQUIRE(!result.has_value(), printable(id));
        BOOST_TEST((result.error().code() == Code::kInvalidArgument));
        BOOST_TEST(result.error().message() == printable(result.error().message()));
    }
    BOOST_TEST(!validateId(std::string_view("a\0b", 3)).has_value());
    BOOST_TEST(!validateId(std::string(kMaxIdLength + 1, 'a')).has_value());
}

BOOST_AUTO_TEST_CASE(the_locale_changes_nothing) {
    const std::string before = std::setlocale(LC_ALL, nullptr);
    if (std::setlocale(LC_ALL, "C.UTF-8") == nullptr) {
        BOOST_TEST_MESSAGE("skipped: no locale C.UTF-8");
        return;
    }
    BOOST_TEST(!validateId("\xc3\xa9").has_value());
    BOOST_TEST(!validateId("\xe9").has_value());
    (void)std::setlocale(LC_ALL, before.c_str());
}

BOOST_AUTO_TEST_CASE(a_long_bad_id_is_cut_in_the_message) {
    const auto result = validateId(std::string(200, ' '));
    BOOST_TEST_REQUIRE(!result.has_value());
    BOOST_TEST(result.error().message().size() < 120U);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
