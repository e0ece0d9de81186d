// Entry point of every unit test program.
#define BOOST_TEST_MODULE arca
#include <boost/test/included/unit_test.hpp>
