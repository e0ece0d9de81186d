#include "vsock/hybrid.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "vsock/handshake.h"

namespace arca::vsock {
namespace {

using base::Code;
using base::errnoText;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
namespace log = base::log;

// Clients accepted before other events get their turn.
constexpr int kAcceptsPerEvent = 64;

}  // namespace

Result<> PeerPolicy::check(int socket_fd) const {
    ARCA_TRY(const base::PeerCredentials peer, base::peerCredentials(socket_fd));
    if (allows(peer.uid)) return {};
    return fail(Code::kPermissionDenied, "peer with uid " + std::to_string(peer.uid) + " refused");
}

bool PeerPolicy::allows(uid_t user) const {
    return user == 0 || std::find(users_.begin(), users_.end(), user) != users_.end();
}

Result<SocketPlace> openSocketPlace(const std::string& path, const PeerPolicy& owners) {
    const size_t slash = path.rfind('/');
    SocketPlace place;
    place.name = slash == std::string::npos ? path : path.substr(slash + 1);
    std::string directory = slash == std::string::npos ? "." : path.substr(0, slash);
    if (directory.empty()) directory = "/";
    // "_4294967295" is the longest that is put behind the name.
    if (place.name.empty() || place.name.size() + 11 >= sizeof(sockaddr_un{}.sun_path)) {
        return fail(Code::kInvalidArgument,
                    "socket path " + path + ": no name, or too long a name");
    }
    ARCA_CHECK(base::makeDirs(directory, 0700));
    ARCA_TRY(place.directory, base::openAt(AT_FDCWD, directory, O_PATH | O_DIRECTORY));
    struct stat status {};
    if (::fstat(place.directory.get(), &status) != 0) return failErrno("stat " + directory);
    if ((status.st_mode & 077U) != 0) {
        return fail(Code::kPermissionDenied, "directory " + directory + ": must have mode 0700");
    }
    if (!owners.allows(status.st_uid)) {
        return fail(Code::kPermissionDenied,
                    "directory " + directory + ": belongs to somebody else");
    }
    return place;
}

Result<UniqueFd> UnixDialer::dial(uint32_t port) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = name_ + "_" + std::to_string(port);
    // openSocketPlace() made sure that it fits.
    std::memcpy(address.sun_path, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket.valid()) return failErrno("make a unix socket");
    // Never waits: a listener whose backlog is full gives EAGAIN, and the guest is refused as by
    // any host that is too busy.
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return failErrno("connect to " + name);
    }
    ARCA_CHECK(peers_.check(socket.get()));
    return socket;
}

// A connection on BASE whose line is not complete yet.
class HybridListener::Client final : public EventHandler {
 public:
    Client(EventLoop& loop, HybridListener& owner)
        : owner_(owner), socket_(loop, *this), timer_(loop, [this] { owner_.drop(*this); }) {}

    Result<> start(UniqueFd socket) {
        timer_.start(kLineTimeout);
        return socket_.open(std::move(socket), EPOLLIN | EPOLLRDHUP | EPOLLET);
    }
    UniqueFd release() { return socket_.release(); }

    void onEvents(uint32_t events) override {
        // Only looked at, because what follows the line is the stream's.
        std::array<char, kMaxConnectLine> bytes{};
        const ssize_t n = ::recv(socket_.fd(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        const auto count = static_cast<size_t>(std::max<ssize_t>(n, 0));
        const ConnectLine line = parseConnectLine({bytes.data(), count});
        const bool ended = n <= 0 || (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        if (line.status == ConnectLine::Status::kIncomplete && !ended) return;
        if (line.status != ConnectLine::Status::kComplete ||
            ::recv(socket_.fd(), bytes.data(), line.bytes, MSG_DONTWAIT) !=
                static_cast<ssize_t>(line.bytes)) {
            owner_.drop(*this);
            return;
        }
        owner_.onLine(*this, line.port);
    }

 private:
    HybridListener& owner_;
    Watch socket_;
    Timer timer_;
};

HybridListener::HybridListener(EventLoop& loop, Device& device, const PeerPolicy& peers,
                               size_t max_clients)
    : loop_(loop),
      device_(device),
      peers_(peers),
      max_clients_(max_clients),
      listener_(loop, *this),
      retry_(loop, [this] { (void)listener_.setEvents(EPOLLIN); }) {}

HybridListener::~HybridListener() = default;

Result<> HybridListener::start(UniqueFd listener) {
    return listener_.open(std::move(listener), EPOLLIN);
}

void HybridListener::stop() {
    retry_.stop();
    listener_.close();
    clients_.clear();
}

void HybridListener::onEvents(uint32_t /*events*/) {
    for (int i = 0; i < kAcceptsPerEvent; ++i) {
        UniqueFd socket(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (socket.valid()) {
            add(std::move(socket));
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            // The client stays in the queue, and the event with it: look away for a while.
            log::warning("accept: " + errnoText(errno));
            (void)listener_.setEvents(0);
            retry_.start(kRetryAccept);
        }
        return;
    }
}

void HybridListener::add(UniqueFd socket) {
    if (clients_.size() >= max_clients_) return;
    if (Result<> allowed = peers_.check(socket.get()); !allowed) {
        log::warning("client: " + allowed.error().message());
        return;
    }
    auto client = std::make_unique<Client>(loop_, *this);
    Client& added = *client;
    if (!added.start(std::move(socket))) return;
    clients_.emplace(&added, std::move(client));
    // The line has mostly come with the connection.
    added.onEvents(0);
}

void HybridListener::onLine(Client& client, uint32_t port) {
    UniqueFd socket = client.release();
    drop(client);
    if (Result<> connected = device_.connect(std::move(socket), port); !connected) {
        log::debug(connected.error().message());
    }
}

void HybridListener::drop(Client& client) {
    clients_.erase(&client);
}

}  // namespace arca::vsock
