#include "hooks/tap_forwarder/dns_mappings.h"

#include <sys/socket.h>

#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/files.h"
#include "base/socket.h"
#include "base/temp_dir.h"

namespace arca::tap_forwarder {
namespace {

const DnsMappings kMappings{
    {"front", {{"web", "c1", "192.0.2.5", {"www", "w"}}, {"db", "c2", "192.0.2.6", {}}}},
    {"none", {}},
};

// A name server that gives one answer, in the pieces that are given.
class NameServer {
 public:
    explicit NameServer(std::vector<std::string> pieces)
        : listener_(*base::listenUnix(folder_.fd(), "dns.sock", SOCK_STREAM)),
          thread_([this, pieces = std::move(pieces)] {
              const base::UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
              request_ = base::readAll(peer.get(), size_t{1} << 20U).value_or("");
              for (const std::string& piece : pieces) (void)base::writeAll(peer.get(), piece);
          }) {}
    NameServer(const NameServer&) = delete;
    NameServer& operator=(const NameServer&) = delete;
    ~NameServer() { (void)request(); }

    [[nodiscard]] std::string path() const { return folder_.path() + "/dns.sock"; }
    const std::string& request() {
        if (thread_.joinable()) thread_.join();
        return request_;
    }

 private:
    base::TempDir folder_;
    base::UniqueFd listener_;
    std::string request_;
    std::thread thread_;
};

BOOST_AUTO_TEST_SUITE(dns_mappings)

BOOST_AUTO_TEST_CASE(one_object_is_sent_and_one_is_read) {
    NameServer server({"{\"succ", "ess\": true", ", \"records\": 9}\n"});
    BOOST_TEST(updateDns(kMappings, server.path()).value() == 2U);
    const auto sent = nlohmann::json::parse(server.request());
    const auto wanted = nlohmann::json::parse(R"({"networks": {
        "front": {"containers": [
            {"name": "web", "id": "c1", "ip_address": "192.0.2.5", "aliases": ["www", "w"]},
            {"name": "db", "id": "c2", "ip_address": "192.0.2.6", "aliases": []}]},
        "none": {"containers": []}}})");
    BOOST_TEST((sent == wanted), server.request());
}

BOOST_AUTO_TEST_CASE(the_name_servers_refusal_is_passed_on) {
    NameServer server({R"({"success": false, "error": "no such zone"})"});
    const auto refused = updateDns(kMappings, server.path());
    BOOST_TEST_REQUIRE(!refused.has_value());
    BOOST_TEST(refused.error().message() == "name server at " + server.path() + ": no such zone");
}

BOOST_AUTO_TEST_CASE(an_answer_that_is_no_object_is_an_error) {
    for (const char* answer : {"", "[]", "true", "{\"success\": tr", "ok\n"}) {
        NameServer server({answer});
        const auto refused = updateDns(kMappings, server.path());
        BOOST_TEST_REQUIRE(!refused.has_value(), answer);
        BOOST_TEST(refused.error().message().find("the answer is no JSON object") !=
                   std::string::npos);
    }
}

BOOST_AUTO_TEST_CASE(nobody_there_is_an_error_that_says_where) {
    const base::TempDir folder;
    const auto refused = updateDns(kMappings, folder.path() + "/dns.sock");
    BOOST_TEST_REQUIRE(!refused.has_value());
    BOOST_TEST((refused.error().code() == base::Code::kUnavailable));
    BOOST_TEST(refused.error().message().find("name server at " + folder.path()) == 0U);
    BOOST_TEST(refused.error().message().find("no such file or directory") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(text_that_is_no_utf8_does_no_harm) {
    NameServer server({"{}"});
    BOOST_TEST(updateDns({{"n", {{"\xff", "", "", {}}}}}, server.path()).value() == 1U);
    BOOST_TEST(nlohmann::json::accept(server.request()));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::tap_forwarder
