// Messages with their lengths, whole or refused; answers that fit into a datagram.
#include "base/dns_stream.h"

#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <string>

#include "base/files.h"
#include "base/socket.h"

namespace arca::base {
namespace {

const std::string kQuestion(kDnsHeaderBytes, 'q');

struct Ends {
    SocketPair pair = socketPair(SOCK_STREAM).value();
    StopSignal stop;
    UniqueFd far = std::move(pair.second);
    DataChannel near{std::move(pair.first), stop, std::chrono::milliseconds(5'000)};
};

BOOST_AUTO_TEST_SUITE(dns_stream)

BOOST_AUTO_TEST_CASE(a_message_arrives_as_it_was_sent) {
    Ends ends;
    const StopSignal stop;
    DataChannel far(std::move(ends.far), stop);
    const std::string longest(4000, 'x');
    for (const std::string& message : {kQuestion, longest}) {
        BOOST_TEST(writeDnsMessage(far, message).has_value());
        const auto got = readDnsMessage(ends.near);
        BOOST_TEST_REQUIRE(got.has_value());
        BOOST_TEST((*got == message));
    }
    far.finishWriting();
    const auto end = readDnsMessage(ends.near);
    BOOST_TEST_REQUIRE(end.has_value());
    BOOST_TEST(!end->has_value());
}

BOOST_AUTO_TEST_CASE(what_is_no_message_is_refused) {
    for (const std::string& bytes : {std::string("\0", 1),
                                     std::string("\0\x0c"
                                                 "short",
                                                 7),
                                     std::string("\0\x0b"
                                                 "12345678901",
                                                 13)}) {
        Ends ends;
        BOOST_TEST(writeAll(ends.far.get(), bytes).has_value());
        ends.far.reset();
        const auto got = readDnsMessage(ends.near);
        BOOST_TEST_REQUIRE(!got.has_value());
        BOOST_TEST((got.error().code() == Code::kInvalidArgument));
    }
}

BOOST_AUTO_TEST_CASE(an_answer_that_is_too_long_says_that_it_is) {
    std::string question(kDnsHeaderBytes, '\0');
    const std::string small(512, '\1');
    BOOST_TEST((fitDatagram(question, small) == small));
    const std::string cut = fitDatagram(question, small + "x");
    BOOST_TEST(cut.size() == kDnsHeaderBytes);
    BOOST_TEST((static_cast<unsigned char>(cut[2]) & 0x82) == 0x82);  // an answer, truncated
    BOOST_TEST((cut.substr(0, 2) == small.substr(0, 2)));             // to that question
    BOOST_TEST((cut.substr(4) == std::string(8, '\0')));
    question[11] = 1;  // one additional record: it can take more
    BOOST_TEST((fitDatagram(question, small + "x") == small + "x"));
    BOOST_TEST(fitDatagram(question, std::string(1233, '\1')).size() == kDnsHeaderBytes);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
