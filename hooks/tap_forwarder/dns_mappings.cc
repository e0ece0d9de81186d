#include "hooks/tap_forwarder/dns_mappings.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/socket.h"
#include "base/strings.h"

namespace arca::tap_forwarder {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using Json = nlohmann::json;

namespace {

constexpr std::chrono::seconds kPatience{5};
constexpr size_t kLongestAnswer = 65536;

std::string textOf(const DnsMappings& mappings) {
    Json networks = Json::object();
    for (const auto& [name, peers] : mappings) {
        Json containers = Json::array();
        for (const DnsPeer& peer : peers) {
            containers.push_back({{"name", peer.name},
                                  {"id", peer.id},
                                  {"ip_address", peer.ip_address},
                                  {"aliases", peer.aliases}});
        }
        networks[name] = {{"containers", std::move(containers)}};
    }
    const Json all = {{"networks", std::move(networks)}};
    return all.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// Writes and reads give up together, however slowly the other side goes on.
class Conversation {
 public:
    explicit Conversation(UniqueFd socket) : socket_(std::move(socket)) {}

    Result<> send(std::string_view text) {
        while (!text.empty()) {
            ARCA_CHECK(limitTime());
            const ssize_t n = ::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return unavailable("send");
            text.remove_prefix(static_cast<size_t>(n));
        }
        // For a reader that waits for the end; one that reads an object does not notice.
        (void)::shutdown(socket_.get(), SHUT_WR);
        return {};
    }

    // Up to the end, or to the end of an object.
    Result<Json> receive() {
        std::string text;
        while (text.size() < kLongestAnswer) {
            ARCA_CHECK(limitTime());
            char piece[4096];
            const ssize_t n = ::recv(socket_.get(), piece, sizeof piece, 0);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return unavailable("receive");
            text.append(piece, static_cast<size_t>(n));
            Json answer = Json::parse(text, nullptr, false);
            if (answer.is_object()) return answer;
            if (n == 0) break;
        }
        return fail(Code::kInternal, "the answer is no JSON object: \"" +
                                         base::printable(text.substr(0, 200)) + "\"");
    }

 private:
    static tl::unexpected<base::Error> unavailable(const std::string& what) {
        if (errno == EAGAIN) return fail(Code::kUnavailable, what + ": no answer in time");
        return fail(Code::kUnavailable, what + ": " + base::errnoText(errno), errno);
    }

    Result<> limitTime() {
        const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
            deadline_ - std::chrono::steady_clock::now());
        if (left.count() <= 0) return fail(Code::kUnavailable, "no answer in time");
        const timeval limit{static_cast<time_t>(left.count() / 1'000'000),
                            static_cast<suseconds_t>(left.count() % 1'000'000)};
        for (const int option : {SO_SNDTIMEO, SO_RCVTIMEO}) {
            if (::setsockopt(socket_.get(), SOL_SOCKET, option, &limit, sizeof limit) != 0) {
                return failErrno("set a time limit");
            }
        }
        return {};
    }

    UniqueFd socket_;
    std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + kPatience;
};

Result<> tell(const std::string& text, const std::string& socket_path) {
    // A connection that would have to wait for a full queue is as good as none.
    ARCA_TRY(UniqueFd socket, base::connectUnixPath(socket_path, SOCK_STREAM | SOCK_NONBLOCK));
    if (::fcntl(socket.get(), F_SETFL, 0) != 0) return failErrno("clear O_NONBLOCK");
    Conversation conversation(std::move(socket));
    ARCA_CHECK(conversation.send(text));
    ARCA_TRY(const Json answer, conversation.receive());
    const auto success = answer.find("success");
    if (success == answer.end() || !success->is_boolean() || success->get<bool>()) return {};
    const auto error = answer.find("error");
    const bool words = error != answer.end() && error->is_string();
    return fail(Code::kFailedPrecondition,
                words ? base::printable(error->get<std::string>()) : "refused without a reason");
}

}  // namespace

Result<uint32_t> updateDns(const DnsMappings& mappings, const std::string& socket_path) {
    uint32_t containers = 0;
    for (const auto& [name, peers] : mappings) containers += static_cast<uint32_t>(peers.size());
    auto told = tell(textOf(mappings), socket_path);
    if (!told) {
        return fail(std::move(told).error().withContext("name server at " + socket_path));
    }
    return containers;
}

}  // namespace arca::tap_forwarder
