#include "runtime/monitor/name_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <utility>

#include "base/data_channel.h"
#include "base/dns_stream.h"
#include "base/log.h"
#include "base/thread.h"

namespace arca::runtime {

using base::Code;
using base::DataChannel;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr size_t kMostAtOnce = 32;
constexpr int kAcceptPauseMillis = 100;
constexpr std::chrono::milliseconds kAnswerLimit{10'000};

Result<UniqueFd> connectTo(const std::string& address, int type) {
    const auto place = base::nameServerAt(address);
    if (!place) return fail(Code::kInternal, address + ": not an address");
    UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    if (!fd.valid() ||
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*place), sizeof *place) != 0) {
        return failErrno("reach the name server " + address);
    }
    return fd;
}

Result<std::string> askByDatagram(DataChannel& server, const std::string& question) {
    ARCA_CHECK(server.write(question));
    std::string answer(base::kMaxDnsBytes, '\0');
    ARCA_TRY(const size_t size, server.read(answer.data(), answer.size()));
    answer.resize(size);
    return answer;
}

}  // namespace

bool nameServerListens(const std::string& address) {
    const auto server = connectTo(address, SOCK_DGRAM);
    if (!server) return false;
    const std::string nothing(base::kDnsHeaderBytes, '\0');
    if (::send(server->get(), nothing.data(), nothing.size(), MSG_NOSIGNAL) < 0) return false;
    // Over the loopback interface the kernel's refusal is there at once.
    std::array<char, 512> answer{};
    return ::recv(server->get(), answer.data(), answer.size(), MSG_DONTWAIT) >= 0 ||
           errno == EAGAIN || errno == EWOULDBLOCK;
}

NameServer::NameServer(std::unique_ptr<base::Listener> listener, std::string address)
    : listener_(std::move(listener)), address_(std::move(address)), crew_(kMostAtOnce) {}

Result<std::unique_ptr<NameServer>> NameServer::start(base::Transport& transport, uint32_t port,
                                                      const std::string& address) {
    ARCA_TRY(auto listener, transport.listen(port));
    std::unique_ptr<NameServer> server(new NameServer(std::move(listener), address));
    if (server->stop_.fd() < 0) return failErrno("make an eventfd");
    ARCA_TRY(server->thread_, base::startThread([raw = server.get()] { raw->run(); }));
    return server;
}

NameServer::~NameServer() {
    (void)stop_.set();
    if (thread_.joinable()) thread_.join();
}

void NameServer::run() {
    while (!stop_.isSet()) {
        std::array<pollfd, 2> entries{pollfd{stop_.fd(), POLLIN, 0},
                                      pollfd{listener_->fd(), POLLIN, 0}};
        if (::poll(entries.data(), entries.size(), -1) <= 0) continue;
        if (entries[1].revents == 0) continue;
        auto guest = listener_->accept();
        if (!guest) {
            // Out of descriptors, say: the same would come again at once.
            (void)::poll(entries.data(), 1, kAcceptPauseMillis);
            continue;
        }
        auto shared = std::make_shared<UniqueFd>(std::move(*guest));
        (void)crew_.start([this, shared] {
            const auto served = serve(std::move(*shared));
            if (!served) base::log::debug("name server: " + served.error().message());
        });
    }
}

Result<> NameServer::serve(UniqueFd socket) {
    DataChannel guest(std::move(socket), stop_, kAnswerLimit);
    char how = 0;
    ARCA_TRY(const size_t size, guest.read(&how, 1));
    if (size == 0) return {};
    if (how != base::kByDatagram && how != base::kByStream) {
        return fail(Code::kInvalidArgument, "the guest asks in an unknown way");
    }
    const bool by_datagram = how == base::kByDatagram;
    ARCA_TRY(UniqueFd connection, connectTo(address_, by_datagram ? SOCK_DGRAM : SOCK_STREAM));
    DataChannel server(std::move(connection), stop_, kAnswerLimit);
    while (true) {
        ARCA_TRY(const auto question, base::readDnsMessage(guest));
        if (!question) return {};
        if (by_datagram) {
            ARCA_TRY(const std::string answer, askByDatagram(server, *question));
            return base::writeDnsMessage(guest, answer);
        }
        ARCA_CHECK(base::writeDnsMessage(server, *question));
        ARCA_TRY(const auto answer, base::readDnsMessage(server));
        if (!answer) return {};
        ARCA_CHECK(base::writeDnsMessage(guest, *answer));
    }
}

}  // namespace arca::runtime
