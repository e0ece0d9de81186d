#include "hooks/tap_forwarder/name_relay.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/dns_stream.h"
#include "base/log.h"
#include "base/strings.h"
#include "base/thread.h"

namespace arca::tap_forwarder {

using base::Code;
using base::DataChannel;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// More questions at once are left unanswered; who asked asks again.
constexpr size_t kMostAtOnce = 64;
constexpr int kBacklog = 16;
constexpr std::chrono::milliseconds kDialLimit{2'000};
// A resolver has given up by then.
constexpr std::chrono::milliseconds kAnswerLimit{15'000};

Result<UniqueFd> bindTo(const sockaddr_in& address, int type, const std::string& what) {
    UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return failErrno(what);
    const int on = 1;
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return failErrno(what);
    }
    if (type == SOCK_STREAM && ::listen(fd.get(), kBacklog) != 0) return failErrno(what);
    return fd;
}

void logFailure(const Result<>& done) {
    if (!done) base::log::debug("name server: " + done.error().message());
}

}  // namespace

NameRelay::NameRelay(base::Transport& transport, uint32_t port)
    : transport_(transport), port_(port), crew_(kMostAtOnce) {}

Result<std::unique_ptr<NameRelay>> NameRelay::start(base::Transport& transport,
                                                    const std::string& address, uint32_t port) {
    const auto place = base::nameServerAt(address);
    if (!place || ntohl(place->sin_addr.s_addr) >> 24U != IN_LOOPBACKNET) {
        return fail(Code::kInvalidArgument, "name server \"" +
                                                base::printable(address.substr(0, 64)) +
                                                "\": not a loopback address of IPv4");
    }
    const std::string what = "listen on " + address + ", port " + std::to_string(base::kDnsPort);
    std::unique_ptr<NameRelay> relay(new NameRelay(transport, port));
    ARCA_TRY(relay->datagrams_, bindTo(*place, SOCK_DGRAM, what));
    ARCA_TRY(relay->connections_, bindTo(*place, SOCK_STREAM, what));
    if (relay->stop_.fd() < 0) return failErrno("eventfd");
    ARCA_TRY(relay->thread_, base::startThread([raw = relay.get()] { raw->run(); }));
    return relay;
}

NameRelay::~NameRelay() {
    (void)stop_.set();
    if (thread_.joinable()) thread_.join();
}

void NameRelay::run() {
    while (!stop_.isSet()) {
        std::array<pollfd, 3> entries{pollfd{stop_.fd(), POLLIN, 0},
                                      pollfd{datagrams_.get(), POLLIN, 0},
                                      pollfd{connections_.get(), POLLIN, 0}};
        if (::poll(entries.data(), entries.size(), -1) <= 0) continue;
        if (entries[1].revents != 0) takeDatagram();
        if (entries[2].revents != 0) takeConnection();
    }
}

void NameRelay::takeDatagram() {
    std::string question(base::kMaxDnsBytes, '\0');
    std::string from(sizeof(sockaddr_in), '\0');
    socklen_t from_size = sizeof(sockaddr_in);
    const ssize_t size =
        ::recvfrom(datagrams_.get(), question.data(), question.size(), MSG_DONTWAIT,
                   reinterpret_cast<sockaddr*>(from.data()), &from_size);
    if (size < static_cast<ssize_t>(base::kDnsHeaderBytes)) return;
    question.resize(static_cast<size_t>(size));
    (void)crew_.start([this, question = std::move(question), from = std::move(from)] {
        logFailure(passOn(question, from));
    });
}

void NameRelay::takeConnection() {
    UniqueFd client(::accept4(connections_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.valid()) return;
    auto shared = std::make_shared<UniqueFd>(std::move(client));
    (void)crew_.start([this, shared] { logFailure(passOn(std::move(*shared))); });
}

Result<DataChannel> NameRelay::dialHost(char how) {
    ARCA_TRY(UniqueFd socket, transport_.dial(port_, kDialLimit));
    DataChannel host(std::move(socket), stop_, kAnswerLimit);
    ARCA_CHECK(host.write(std::string_view(&how, 1)));
    return host;
}

Result<> NameRelay::passOn(const std::string& question, const std::string& from) {
    ARCA_TRY(DataChannel host, dialHost(base::kByDatagram));
    ARCA_CHECK(base::writeDnsMessage(host, question));
    ARCA_TRY(auto answer, base::readDnsMessage(host));
    if (!answer) return {};  // the server has not answered
    const std::string reply = base::fitDatagram(question, std::move(*answer));
    if (::sendto(datagrams_.get(), reply.data(), reply.size(), 0,
                 reinterpret_cast<const sockaddr*>(from.data()),
                 static_cast<socklen_t>(from.size())) < 0) {
        return failErrno("answer");
    }
    return {};
}

Result<> NameRelay::passOn(UniqueFd socket) {
    DataChannel client(std::move(socket), stop_, kAnswerLimit);
    ARCA_TRY(auto question, base::readDnsMessage(client));
    if (!question) return {};
    ARCA_TRY(DataChannel host, dialHost(base::kByStream));
    while (question) {
        ARCA_CHECK(base::writeDnsMessage(host, *question));
        ARCA_TRY(const auto answer, base::readDnsMessage(host));
        if (!answer) return {};
        ARCA_CHECK(base::writeDnsMessage(client, *answer));
        ARCA_TRY(question, base::readDnsMessage(client));
    }
    return {};
}

}  // namespace arca::tap_forwarder
