#include "vminitd/attach.h"

#include <sys/epoll.h>

#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "base/socket.h"
#include "proto/body_protocol.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;

// One command's connection.
class AttachConnection : public BodyOwner, public std::enable_shared_from_this<AttachConnection> {
 public:
    AttachConnection(AttachServer& server, UniqueFd fd) : server_(&server), fd_(std::move(fd)) {}

    Result<> start(EventLoop& loop) {
        ARCA_TRY(watch_, Watch::make(loop, fd_.get(), EPOLLIN, [this](uint32_t) {
                     const auto keep = shared_from_this();
                     receive();
                 }));
        return {};
    }

    void runHooks(pid_t pid, std::function<void(Result<>)> done) override {
        hooks_done_ = std::move(done);
        auto sent = send(BodyMessage::kRunHooks, pid);
        if (!sent) close();
    }

    Result<> created(pid_t pid, int master_fd) override {
        std::vector<int> fds;
        if (master_fd >= 0) fds.push_back(master_fd);
        return base::sendMessage(fd_.get(), proto::encodeBodyMessage(BodyMessage::kCreated, pid),
                                 fds);
    }

    void warning(std::string_view text) override { (void)send(BodyMessage::kBodyWarning, 0, text); }

    void onGone(std::function<void()> gone) override { gone_ = std::move(gone); }

    void close() {
        if (server_ == nullptr) return;
        AttachServer* server = std::exchange(server_, nullptr);
        watch_.reset();
        fd_.reset();
        hooks_done_ = nullptr;
        const auto gone = std::exchange(gone_, nullptr);
        server->drop(this);  // the last reference may go here; the caller holds one
        if (gone) gone();
    }

    // The server ends; nobody is to be told.
    void abandon() {
        server_ = nullptr;
        gone_ = nullptr;
        watch_.reset();
    }

 private:
    Result<> send(BodyMessage type, int32_t value, std::string_view text = {}) {
        return base::sendMessage(fd_.get(), proto::encodeBodyMessage(type, value, text));
    }

    void receive() {
        auto message = base::receiveMessage(fd_.get());
        if (!message || !*message) return close();
        const auto packet = proto::decodeBodyMessage((*message)->data);
        if (!packet) return close();
        switch (packet->type) {
            case BodyMessage::kAttach:
                return attach(packet->text, std::move((*message)->fds));
            case BodyMessage::kHooksDone: {
                const auto done = std::exchange(hooks_done_, nullptr);
                if (!done) return close();
                if (packet->text.empty()) return done({});
                return done(fail(Code::kInternal, std::string(packet->text)));
            }
            default:
                base::log::warning("unexpected message on attach.sock");
                return close();
        }
    }

    // "CONTAINER_ID\0PROCESS_ID\0" and two descriptors.
    void attach(std::string_view text, std::vector<UniqueFd> fds) {
        const size_t first = text.find('\0');
        const size_t second = first == std::string_view::npos ? first : text.find('\0', first + 1);
        if (attached_ || second == std::string_view::npos || second + 1 != text.size() ||
            fds.size() != 2) {
            base::log::warning("malformed attach message");
            return close();
        }
        BodyKey key{std::string(text.substr(0, first)),
                    std::string(text.substr(first + 1, second - first - 1))};
        if (!base::validateId(key.container_id) || !base::validateId(key.process_id)) {
            base::log::warning("attach message with a malformed id");
            return close();
        }
        attached_ = true;
        Body body{std::move(fds[0]), std::move(fds[1]), shared_from_this(), nullptr};
        server_->offer(key, shared_from_this(), std::move(body));
    }

    AttachServer* server_;
    UniqueFd fd_;
    Watch watch_;
    bool attached_ = false;
    std::function<void(Result<>)> hooks_done_;
    std::function<void()> gone_;
};

AttachServer::~AttachServer() {
    for (auto& [raw, connection] : connections_) connection->abandon();
}

void AttachServer::serve(UniqueFd connection) {
    auto made = std::make_shared<AttachConnection>(*this, std::move(connection));
    if (!made->start(loop_)) return;
    connections_.emplace(made.get(), made);
}

void AttachServer::offer(const BodyKey& key, const std::shared_ptr<AttachConnection>& connection,
                         Body body) {
    for (auto it = claims_.begin(); it != claims_.end(); ++it) {
        if (it->key != key) continue;
        const auto ready = std::move(it->ready);
        claims_.erase(it);
        return ready(std::move(body));
    }
    if (offers_.contains(key)) {
        base::log::warning("a body for this process is there already id=" + key.process_id +
                           " container=" + key.container_id);
        return connection->close();
    }
    offers_.emplace(key,
                    Offer{connection, std::move(body), Timer(loop_, kUnclaimedLimit, [this, key] {
                              const auto found = offers_.find(key);
                              if (found == offers_.end()) return;
                              const auto unclaimed = found->second.connection;
                              unclaimed->close();
                          })});
}

void AttachServer::acquire(const BodyRequest& request, std::function<void(Result<Body>)> ready) {
    const BodyKey& key = request.key;
    const auto found = offers_.find(key);
    if (found != offers_.end()) {
        Body body = std::move(found->second.body);
        offers_.erase(found);
        return ready(std::move(body));
    }
    if (closed_ && connections_.empty()) {
        return ready(fail(Code::kUnavailable, "the agent is leaving"));
    }
    claims_.push_back(Claim{key, std::move(ready), Timer()});
    const auto claim = std::prev(claims_.end());
    claim->timeout = Timer(loop_, kAcquireLimit, [this, claim] {
        const auto late = std::move(claim->ready);
        claims_.erase(claim);
        late(fail(Code::kFailedPrecondition, "no process was attached within " +
                                                 std::to_string(kAcquireLimit.count() / 1000) +
                                                 " seconds"));
    });
}

void AttachServer::drop(AttachConnection* connection) {
    std::erase_if(offers_,
                  [&](const auto& entry) { return entry.second.connection.get() == connection; });
    connections_.erase(connection);
}

}  // namespace arca::vminitd
