#include "hooks/tap_forwarder/addresses.h"

#include <boost/test/unit_test.hpp>

namespace arca::tap_forwarder {
namespace {

BOOST_AUTO_TEST_SUITE(addresses)

BOOST_AUTO_TEST_CASE(no_prefix_length_means_24) {
    BOOST_TEST(ipv4WithPrefix("192.0.2.5", 0).value() == "192.0.2.5/24");
    BOOST_TEST(ipv4WithPrefix("192.0.2.5", 1).value() == "192.0.2.5/1");
    BOOST_TEST(ipv4WithPrefix("192.0.2.5", 32).value() == "192.0.2.5/32");
}

BOOST_AUTO_TEST_CASE(what_is_no_address_is_refused_and_named) {
    using std::string_literals::operator""s;
    for (const std::string& text :
         {""s, "192.0.2"s, "192.0.2.256"s, "192.0.2.5/24"s, "2001:db8::1"s, " 192.0.2.5"s,
          "192.0.2.5\n"s, "192.0.2.5\0x"s, "eth0"s}) {
        const auto refused = ipv4WithPrefix(text, 24);
        BOOST_TEST_REQUIRE(!refused.has_value());
        BOOST_TEST(refused.error().message().find("malformed IPv4 address") == 0U);
        BOOST_TEST(refused.error().message().find('\n') == std::string::npos);
    }
    BOOST_TEST(ipv4WithPrefix("192.0.2.5", 33).error().message() ==
               "netmask 33: not a prefix length of IPv4");
    BOOST_TEST(!checkAddress("192.0.2.5.6").has_value());
    BOOST_TEST(checkAddress("2001:db8::1").has_value());
    BOOST_TEST(checkAddress("192.0.2.1").has_value());
}

BOOST_AUTO_TEST_CASE(netmasks_have_no_holes) {
    BOOST_TEST(prefixOfMask("255.255.255.0").value() == 24U);
    BOOST_TEST(prefixOfMask("255.255.255.255").value() == 32U);
    BOOST_TEST(prefixOfMask("255.255.240.0").value() == 20U);
    BOOST_TEST(prefixOfMask("0.0.0.0").value() == 0U);
    for (const char* mask : {"255.0.255.0", "0.255.255.255", "24", "", "255.255.255"}) {
        BOOST_TEST(!prefixOfMask(mask).has_value(), mask);
    }
}

BOOST_AUTO_TEST_CASE(mac_addresses_are_those_of_interfaces) {
    BOOST_TEST(parseMac("02:00:5E:00:53:AF").value() == "02:00:5e:00:53:af");
    for (const char* text : {"", "02:00:5e:00:53", "02:00:5e:00:53:af:00", "2:0:5e:0:53:af",
                             "02-00-5e-00-53-af", "02:00:5e:00:53:ag", "+2:00:5e:00:53:af",
                             "01:00:5e:00:53:af", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"}) {
        BOOST_TEST(!parseMac(text).has_value(), text);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::tap_forwarder
