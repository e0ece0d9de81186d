#include "hooks/tap_forwarder/options.h"

#include <boost/test/unit_test.hpp>

namespace arca::tap_forwarder {
namespace {

using Words = std::vector<std::string_view>;

BOOST_AUTO_TEST_SUITE(options)

BOOST_AUTO_TEST_CASE(without_flags_the_host_is_listened_to) {
    const Options options = parseOptions({}, nullptr).value();
    BOOST_TEST(options.listen == "vsock://2");
    BOOST_TEST(options.resolv_conf == "/etc/resolv.conf");
    BOOST_TEST(options.dns_socket == "/tmp/arca-dns-control.sock");
    BOOST_TEST((!options.ready_fd && options.program.empty() && !options.help && !options.version));
}

BOOST_AUTO_TEST_CASE(values_stand_in_the_same_or_in_the_next_word) {
    for (const Words& words : {Words{"--listen", "unix:///run/x", "--ready-fd", "7"},
                               Words{"--listen=unix:///run/x", "--ready-fd=7"}}) {
        const Options options = parseOptions(words, nullptr).value();
        BOOST_TEST(options.listen == "unix:///run/x");
        BOOST_TEST((options.ready_fd == 7));
    }
}

BOOST_AUTO_TEST_CASE(the_flag_comes_before_the_variable) {
    BOOST_TEST((parseOptions({}, "5").value().ready_fd == 5));
    BOOST_TEST((parseOptions({"--ready-fd", "7"}, "5").value().ready_fd == 7));
    BOOST_TEST(parseOptions({}, "x").error().message() == "ARCA_READY_FD: \"x\" is no descriptor");
}

BOOST_AUTO_TEST_CASE(what_stands_after_two_dashes_is_the_program) {
    const Options options =
        parseOptions({"--resolv-conf", "/x", "--", "sh", "--listen", "--"}, "5").value();
    BOOST_TEST((options.program == std::vector<std::string>{"sh", "--listen", "--"}));
    BOOST_TEST(options.resolv_conf == "/x");
    BOOST_TEST(options.listen == "vsock://2");
    BOOST_TEST(!options.ready_fd.has_value());
}

BOOST_AUTO_TEST_CASE(what_is_wrong_is_named) {
    const std::pair<Words, const char*> wrong[] = {
        {{"--nonsense"}, "--nonsense: not known"},
        {{"--nonsense=1"}, "--nonsense: not known"},
        {{"sh"}, "sh: not known"},
        {{"--listen"}, "--listen: needs a value"},
        {{"--listen", "tcp://1"}, "--listen: \"tcp://1\" is neither vsock://CID nor unix://DIR"},
        {{"--listen", "hvsock:///x"},
         "--listen: \"hvsock:///x\" is neither vsock://CID nor unix://DIR"},
        {{"--ready-fd", "-1"}, "--ready-fd: \"-1\" is no descriptor"},
        {{"--ready-fd="}, "--ready-fd: \"\" is no descriptor"},
        {{"--resolv-conf", "x"}, "--resolv-conf: an absolute path is needed"},
        {{"--dns-socket="}, "--dns-socket: an absolute path is needed"},
        {{"--"}, "--: no program"},
    };
    for (const auto& [words, message] : wrong) {
        const auto options = parseOptions(words, nullptr);
        BOOST_TEST_REQUIRE(!options.has_value(), message);
        BOOST_TEST(options.error().message() == message);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::tap_forwarder
