#include "vmexec/process_scheduling.h"

#include <boost/test/unit_test.hpp>

namespace {

using arca::vmexec::parseBitList;

}  // namespace

BOOST_AUTO_TEST_SUITE(process_scheduling)

BOOST_AUTO_TEST_CASE(lists_of_numbers_and_ranges_become_bits) {
    struct Row {
        const char* text;
        std::vector<uint64_t> words;
    };
    for (const Row& row : {Row{"0", {1}}, Row{"0-3,7", {0x8f}}, Row{"1, 3", {0xa}},
                           Row{"64", {0, 1}}, Row{"62-65", {3ULL << 62U, 3}}, Row{"5-5", {32}}}) {
        BOOST_TEST(parseBitList(row.text).value() == row.words, boost::test_tools::per_element());
    }
}

BOOST_AUTO_TEST_CASE(anything_else_is_refused) {
    for (const char* text :
         {"", ",", "a", "3-1", "-1", "1-", "1--2", "65536", "0-99999999999", "0x1"})
        BOOST_TEST(!parseBitList(text), text);
}

BOOST_AUTO_TEST_SUITE_END()
