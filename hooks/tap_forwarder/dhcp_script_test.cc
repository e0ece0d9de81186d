#include "hooks/tap_forwarder/dhcp_script.h"

#include <sys/stat.h>

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <map>

#include "base/temp_dir.h"
#include "hooks/tap_forwarder/dhcp.h"

namespace arca::tap_forwarder {
namespace {

using Variables = std::map<std::string, std::string>;

Variable from(Variables variables) {
    return [variables = std::move(variables)](const char* name) {
        const auto found = variables.find(name);
        return found == variables.end() ? std::string() : found->second;
    };
}

// What the forwarder reads of a line that the script has written.
std::optional<DhcpEvent> passed(std::string_view word, const Variables& variables) {
    std::string line = dhcpLine(word, from(variables));
    if (line.empty()) return std::nullopt;
    BOOST_TEST_REQUIRE(line.back() == '\n');
    line.pop_back();
    return parseDhcpLine(line);
}

BOOST_AUTO_TEST_SUITE(dhcp_script)

BOOST_AUTO_TEST_CASE(both_clients_say_the_same) {
    const Lease wanted{"192.0.2.7/20", {"192.0.2.1", "192.0.2.2"}, {"192.0.2.53"}};
    const auto udhcpc = passed("bound", {{"ip", "192.0.2.7"},
                                         {"subnet", "255.255.240.0"},
                                         {"router", "192.0.2.1 192.0.2.2"},
                                         {"dns", "192.0.2.53"}});
    BOOST_TEST((udhcpc && udhcpc->lease == wanted));
    const auto dhclient = passed("", {{"reason", "BOUND"},
                                      {"new_ip_address", "192.0.2.7"},
                                      {"new_subnet_mask", "255.255.240.0"},
                                      {"new_routers", "192.0.2.1 192.0.2.2"},
                                      {"new_domain_name_servers", "192.0.2.53"}});
    BOOST_TEST((dhclient && dhclient->lease == wanted));
}

BOOST_AUTO_TEST_CASE(a_lease_may_have_no_router_and_no_nameserver) {
    const auto event = passed("renew", {{"ip", "192.0.2.7"}, {"subnet", "255.255.255.0"}});
    BOOST_TEST((event && event->lease == Lease{"192.0.2.7/24", {}, {}}));
    const auto bare = passed("bound", {{"ip", "192.0.2.7"}});
    BOOST_TEST((bare && bare->lease == Lease{"192.0.2.7/32", {}, {}}));
}

BOOST_AUTO_TEST_CASE(a_lost_lease_is_told_and_nothing_else) {
    for (const char* word : {"deconfig", "EXPIRE", "STOP"}) {
        const auto event = passed(word, {});
        BOOST_TEST((event && !event->lease), word);
    }
    for (const char* word : {"leasefail", "nak", "PREINIT", "MEDIUM", "what"}) {
        BOOST_TEST(dhcpLine(word, from({{"ip", "192.0.2.7"}})).empty(), word);
    }
}

BOOST_AUTO_TEST_CASE(values_that_are_no_addresses_make_no_event) {
    for (const char* address :
         {"", "x", "192.0.2.7/8", "192.0.2.7 lost", "$(reboot)", "2001:db8::1"}) {
        BOOST_TEST(!passed("bound", {{"ip", address}, {"subnet", "255.255.255.0"}}), address);
    }
    BOOST_TEST(!passed("bound", {{"ip", "192.0.2.7"}, {"router", "192.0.2.1\nnameserver"}}));
    BOOST_TEST(!passed("bound", {{"ip", "192.0.2.7"}, {"dns", "-rf"}}));
    for (const char* line : {"", "arca-dhcp", "udhcpc: started", "arca-dhcp lease",
                             "arca-dhcp lease 192.0.2.7 - -", "arca-dhcp lease 192.0.2.7/0 - -",
                             "arca-dhcp lease 192.0.2.7/24 - - -", "arca-dhcp found"}) {
        BOOST_TEST(!parseDhcpLine(line), line);
    }
}

BOOST_AUTO_TEST_CASE(the_first_client_in_path_is_taken) {
    const base::TempDir folder;
    const auto add = [&](const std::string& name, mode_t mode) {
        const std::string path = folder.path() + "/" + name;
        std::ofstream(path) << "x";
        (void)::chmod(path.c_str(), mode);
        return path;
    };
    const std::string path = "/nowhere::" + folder.path();
    const auto none = findDhcpProgram(path, "eth0", "/script");
    BOOST_TEST_REQUIRE(!none.has_value());
    BOOST_TEST(none.error().message() ==
               "there is no DHCP client (udhcpc, dhclient or busybox) in PATH");
    const std::string busybox = add("busybox", 0755);
    const auto second = findDhcpProgram(path, "eth0", "/script");
    BOOST_TEST(second.value().file == busybox);
    BOOST_TEST(second.value().args[1] == "udhcpc");
    (void)add("udhcpc", 0644);
    BOOST_TEST(findDhcpProgram(path, "eth0", "/script").value().file == busybox);
    const std::string udhcpc = add("udhcpc", 0755);
    const auto first = findDhcpProgram(path, "eth0", "/script");
    BOOST_TEST(first.value().file == udhcpc);
    BOOST_TEST(first.value().args[0] == "udhcpc");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::tap_forwarder
