#include "vminitd/proxies.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/pump.h"
#include "base/socket.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Pump;
using base::Result;
using base::UniqueFd;
using base::Watch;

namespace {

constexpr mode_t kDefaultPermissions = 0777;
constexpr std::chrono::milliseconds kDialLimit{10'000};
constexpr std::chrono::milliseconds kAcceptPause{100};

Result<UniqueFd> duplicate(const UniqueFd& fd) {
    UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
    if (!copy.valid()) return failErrno("duplicate a connection");
    return copy;
}

// A socket file of ours, removed with the object unless another has taken its place.
class SocketFile {
 public:
    SocketFile(UniqueFd dir, std::string name, UniqueFd listener)
        : dir_(std::move(dir)), name_(std::move(name)), listener_(std::move(listener)) {
        struct stat st {};
        if (::fstatat(dir_.get(), name_.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) inode_ = st.st_ino;
    }
    SocketFile(const SocketFile&) = delete;
    SocketFile& operator=(const SocketFile&) = delete;
    ~SocketFile() {
        struct stat st {};
        if (::fstatat(dir_.get(), name_.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_ino == inode_) {
            (void)::unlinkat(dir_.get(), name_.c_str(), 0);
        }
    }
    [[nodiscard]] int fd() const { return listener_.get(); }

 private:
    UniqueFd dir_;
    std::string name_;
    UniqueFd listener_;
    ino_t inode_ = 0;
};

Result<> setMode(int dir_fd, const std::string& name, mode_t mode) {
    ARCA_TRY(const UniqueFd file, base::openAt(dir_fd, name, O_PATH | O_NOFOLLOW));
    if (::chmod(base::fdPath(file.get()).c_str(), mode) != 0) return failErrno("chmod " + name);
    return {};
}

Result<std::unique_ptr<SocketFile>> listenAt(const ProxyRequest& request) {
    const std::string name = request.path.name();
    if (name.empty() || name == "..") {
        return fail(Code::kInvalidArgument, request.path.text() + ": names no file");
    }
    ARCA_TRY(UniqueFd dir, request.path.parent().makeDirs(0755));
    struct stat st {};
    if (::fstatat(dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !S_ISSOCK(st.st_mode)) {
        return fail(Code::kAlreadyExists, request.path.text() + ": there is something else there");
    }
    auto listener = base::listenUnix(dir.get(), name, SOCK_STREAM);
    if (!listener) return fail(std::move(listener).error().withContext(request.path.text()));
    const UniqueFd dir_copy(::fcntl(dir.get(), F_DUPFD_CLOEXEC, 3));
    auto file = std::make_unique<SocketFile>(std::move(dir), name, std::move(*listener));
    constexpr uint32_t kPermissionBits = 0777;
    ARCA_CHECK(setMode(
        dir_copy.get(), name,
        static_cast<mode_t>(request.permissions.value_or(kDefaultPermissions) & kPermissionBits)));
    return file;
}

Result<UniqueFd> connectTo(const GuestPath& path) {
    ARCA_TRY(const UniqueFd file, path.open(O_PATH));
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return failErrno("make a socket");
    // A server that does not accept must not keep a thread for ever.
    constexpr timeval kLimit{5, 0};
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kLimit, sizeof kLimit);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (void)base::fdPath(file.get()).copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return failErrno("connect to " + path.text());
    }
    return fd;
}

}  // namespace

struct Proxies::Proxy {
    ProxyRequest request;
    bool opening = true;  // by a worker, who alone touches the two below meanwhile
    bool stopped = false;
    std::unique_ptr<SocketFile> file;          // of `into`
    std::unique_ptr<base::Listener> listener;  // of `out of`
    Watch watch;
    base::Timer again;

    [[nodiscard]] int fd() const { return file ? file->fd() : listener->fd(); }
    Result<> open(base::Transport& host) {
        if (request.direction == ProxyRequest::Direction::kInto) {
            ARCA_TRY(file, listenAt(request));
        } else {
            ARCA_TRY(listener, host.listen(request.port));
        }
        const int flags = ::fcntl(fd(), F_GETFL);
        if (::fcntl(fd(), F_SETFL, flags | O_NONBLOCK) != 0) return failErrno("fcntl");
        return {};
    }
    // The other end of a connection.
    Result<UniqueFd> dial(base::Transport& host) const {
        if (request.direction == ProxyRequest::Direction::kInto) {
            return host.dial(request.port, kDialLimit);
        }
        return connectTo(request.path);
    }
};

// One connection: a pump each way. Owns itself through them.
class Proxies::Relay : public std::enable_shared_from_this<Relay> {
 public:
    using Ended = std::function<void()>;

    static Result<> start(base::EventLoop& loop, UniqueFd first, UniqueFd second, Ended ended) {
        auto relay = std::make_shared<Relay>();
        ARCA_TRY(UniqueFd first_out, duplicate(first));
        ARCA_TRY(UniqueFd second_out, duplicate(second));
        ARCA_TRY(relay->first_.fd, duplicate(first));
        ARCA_TRY(relay->second_.fd, duplicate(second));
        ARCA_CHECK(relay->watchHangup(loop, relay->first_));
        ARCA_CHECK(relay->watchHangup(loop, relay->second_));
        relay->ended_ = std::move(ended);
        relay->self_ = relay;
        relay->open_ = 2;
        const auto done = [relay = relay.get()](size_t) { relay->oneEnded(); };
        relay->second_.into = Pump::start(loop, std::move(first), std::move(second_out), done);
        relay->first_.into = Pump::start(loop, std::move(second), std::move(first_out), done);
        return {};
    }

 private:
    struct End {
        UniqueFd fd;
        std::weak_ptr<Pump> into;  // writes to this end
        Watch hangup;
    };

    // A peer that is gone altogether takes nothing any more, so nobody need go on reading for it.
    // What it has said before still reaches the other side.
    Result<> watchHangup(base::EventLoop& loop, End& end) {
        ARCA_TRY(end.hangup, Watch::make(loop, end.fd.get(), 0, [this, &end](uint32_t events) {
                     if ((events & (EPOLLHUP | EPOLLERR)) == 0) return;
                     end.hangup.reset();
                     const auto keep = shared_from_this();
                     const auto pump = end.into.lock();
                     if (!pump || pump->ended()) return;
                     pump->abandon();
                     oneEnded();
                 }));
        return {};
    }

    void oneEnded() {
        if (--open_ > 0) return;
        const auto keep = std::exchange(self_, nullptr);
        first_.hangup.reset();
        second_.hangup.reset();
        first_.fd.reset();
        second_.fd.reset();
        ended_();
    }

    End first_;
    End second_;
    int open_ = 0;
    Ended ended_;
    std::shared_ptr<Relay> self_;
};

Proxies::Proxies(base::EventLoop& loop, base::Transport& host, Workers& workers)
    : loop_(loop), host_(host), workers_(workers) {}

Proxies::~Proxies() = default;

void Proxies::start(ProxyRequest request, Done done) {
    if (proxies_.contains(request.id)) {
        return done(fail(Code::kAlreadyExists, "proxy " + request.id + " exists already"));
    }
    if (proxies_.size() >= kMaxProxies) {
        return done(fail(Code::kFailedPrecondition,
                         "there are " + std::to_string(kMaxProxies) + " proxies already"));
    }
    auto proxy = std::make_shared<Proxy>();
    proxy->request = std::move(request);
    proxies_[proxy->request.id] = proxy;
    const bool taken = workers_.post([self = shared_from_this(), proxy, done] {
        auto opened = proxy->open(self->host_);
        self->loop_.post([self, proxy, done, opened = std::move(opened)] {
            self->listening(proxy, opened, done);
        });
    });
    if (taken) return;
    proxies_.erase(proxy->request.id);
    done(fail(Code::kUnavailable, "too much is being done already"));
}

void Proxies::listening(const ProxyPtr& proxy, Result<> opened, const Done& done) {
    proxy->opening = false;
    if (opened && proxy->stopped) opened = fail(Code::kUnavailable, "stopped meanwhile");
    if (!opened) {
        if (!proxy->stopped) proxies_.erase(proxy->request.id);
        proxy->listener.reset();
        proxy->file.reset();
        return done(std::move(opened));
    }
    watch(proxy);
    done({});
}

void Proxies::watch(const ProxyPtr& proxy) {
    if (proxy->stopped || proxy->watch.active()) return;
    auto made = Watch::make(loop_, proxy->fd(), EPOLLIN,
                            [this, weak = std::weak_ptr<Proxy>(proxy)](uint32_t) {
                                if (const auto here = weak.lock()) acceptOne(here);
                            });
    if (!made) return base::log::error(made.error().message());
    proxy->watch = std::move(*made);
}

void Proxies::acceptOne(const ProxyPtr& proxy) {
    const auto later = [&] {
        proxy->watch.reset();
        proxy->again = base::Timer(loop_, kAcceptPause, [this, proxy] { watch(proxy); });
    };
    // Level-triggered: without this, a queue that nobody may take from would keep the loop busy.
    if (connections_ >= kMaxConnections) return later();
    UniqueFd accepted(::accept4(proxy->fd(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted.valid()) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
        base::log::warning("proxy " + proxy->request.id + ": accept: " + base::errnoText(errno));
        return later();
    }
    ++connections_;
    auto held = std::make_shared<UniqueFd>(std::move(accepted));
    const bool taken = workers_.post([self = shared_from_this(), proxy, held] {
        auto dialled = std::make_shared<Result<UniqueFd>>(proxy->dial(self->host_));
        self->loop_.post([self, proxy, held, dialled] {
            if (*dialled) return self->join(std::move(*held), std::move(**dialled));
            base::log::warning("proxy " + proxy->request.id + ": " + dialled->error().message());
            held->reset();
            self->connectionEnded();
        });
    });
    if (taken) return;
    base::log::warning("proxy " + proxy->request.id + ": too much is being done already");
    connectionEnded();
}

void Proxies::join(UniqueFd accepted, UniqueFd dialled) {
    if (closed_) return connectionEnded();
    const auto started = Relay::start(loop_, std::move(accepted), std::move(dialled),
                                      [self = shared_from_this()] { self->connectionEnded(); });
    if (started) return;
    base::log::warning("proxy: " + started.error().message());
    connectionEnded();
}

void Proxies::connectionEnded() {
    --connections_;
}

void Proxies::close(Proxy& proxy) {
    proxy.stopped = true;
    proxy.watch.reset();
    proxy.again.reset();
}

void Proxies::closeAll() {
    closed_ = true;
    for (const auto& [id, proxy] : proxies_) close(*proxy);
    proxies_.clear();
}

void Proxies::stop(const std::string& id, Done done) {
    const auto found = proxies_.find(id);
    if (found == proxies_.end()) {
        return done(fail(Code::kNotFound, "proxy " + id + " not found"));
    }
    const ProxyPtr proxy = found->second;
    proxies_.erase(found);
    close(*proxy);
    // Still being opened: it is closed when the worker comes back.
    if (!proxy->opening) {
        // Unlinking touches the file system.
        const bool taken = workers_.post([proxy, done, &loop = loop_] {
            proxy->file.reset();
            proxy->listener.reset();
            loop.post([done] { done({}); });
        });
        if (taken) return;
        proxy->file.reset();
        proxy->listener.reset();
    }
    done({});
}

}  // namespace arca::vminitd
