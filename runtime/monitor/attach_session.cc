#include "runtime/monitor/attach_session.h"

#include <sys/epoll.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/strings.h"
#include "runtime/monitor/monitor.h"

namespace arca::runtime {

using base::Code;
using base::Result;
using base::UniqueFd;
using proto::MonitorMessage;

namespace {

constexpr size_t kMaxTrees = 4096;
constexpr char kAllowLosses[] =
    ": this guest would silently leave it out (connect.ignore in the configuration can allow that: "
    "\"file-attributes\")";

std::optional<archive::Fidelity> fidelityOf(const std::string& word) {
    if (word == proto::kCopyExact) return archive::Fidelity::kExact;
    if (word == proto::kCopyOrError) return archive::Fidelity::kProtocolOrError;
    if (word == proto::kCopyWithLosses) return archive::Fidelity::kProtocolWithLosses;
    return std::nullopt;
}

}  // namespace

AttachSession::AttachSession(Monitor& monitor, UniqueFd socket)
    : monitor_(monitor), socket_(std::move(socket)) {}

Result<> AttachSession::start(base::EventLoop& loop) {
    ARCA_TRY(watch_, base::Watch::make(loop, socket_.get(), EPOLLIN, [this](uint32_t) {
                 const auto keep = shared_from_this();
                 receive();
             }));
    return {};
}

Result<> AttachSession::send(MonitorMessage type, std::string_view text) {
    return base::sendMessage(socket_.get(), proto::encodeMonitorMessage(type, text));
}

void AttachSession::fail(const std::string& why) {
    if (!socket_.valid()) return;
    (void)send(MonitorMessage::kFailure, why);
    close();
}

void AttachSession::released() {
    if (!socket_.valid()) return;
    (void)send(MonitorMessage::kReleased);
    close();
}

void AttachSession::sandboxLost(const std::string& why) {
    if (copy_) fail(why);
}

void AttachSession::close() {
    if (!socket_.valid()) return;
    const auto keep = shared_from_this();
    watch_.reset();
    socket_.reset();
    trees_.clear();
    // What is being unpacked in the guest can be deleted there when that has ended; see copied().
    if (copy_) return copy_->abort();
    takeBack(std::exchange(process_, nullptr));
    monitor_.drop(*this);
}

void AttachSession::takeBack(const std::shared_ptr<GuestProcess>& process) {
    if (process && !process->committed()) monitor_.takeBack(process);
}

void AttachSession::receive() {
    auto message = base::receiveMessage(socket_.get());
    if (!message || !*message) return close();
    const auto packet = proto::decodeMonitorMessage((*message)->data);
    if (!packet) return fail("malformed message");
    auto handled = handle(*packet, std::move((*message)->fds));
    if (!handled) fail(handled.error().message());
}

Result<> AttachSession::handle(const proto::MonitorPacket& packet, std::vector<UniqueFd> fds) {
    switch (packet.type) {
        case MonitorMessage::kAttach:
            return attach(packet.text, std::move(fds));
        case MonitorMessage::kShare:
            if (!request_ || fds.size() != 1 || trees_.size() >= kMaxTrees) break;
            trees_.push_back({std::string(packet.text), std::move(fds.front())});
            return {};
        case MonitorMessage::kPrepare:
            if (!request_ || process_) break;
            monitor_.whenReady([weak = weak_from_this()](const Result<>& ready) {
                const auto self = weak.lock();
                if (!self || !self->socket_.valid()) return;
                auto prepared = ready ? self->prepare() : ready;
                if (!prepared) self->fail(prepared.error().message());
            });
            return {};
        case MonitorMessage::kCopy:
            if (!process_ || process_->committed() || copy_) break;
            return copy(packet.text);
        case MonitorMessage::kCommit: {
            if (!process_ || process_->committed() || copy_) break;
            ARCA_CHECK(send(MonitorMessage::kCommitted));
            const auto process = process_;
            process->commit();
            return {};
        }
        case MonitorMessage::kRelease: {
            const std::string container(packet.text);
            ARCA_CHECK(base::validateId(container));
            monitor_.release(container, shared_from_this());
            return {};
        }
        case MonitorMessage::kNetwork:
            return attachNetwork(std::string(packet.text), std::move(fds));
        default:
            break;
    }
    return base::fail(Code::kInternal, "unexpected message on attach.sock");
}

Result<> AttachSession::attachNetwork(const std::string& container, std::vector<UniqueFd> fds) {
    ARCA_CHECK(base::validateId(container));
    if (fds.size() != 1) return base::fail(Code::kInternal, "wrong descriptors");
    return monitor_.attachNetwork(
        container, std::move(fds.front()), [weak = weak_from_this()](Result<size_t> attached) {
            const auto self = weak.lock();
            if (!self || !self->socket_.valid()) return;
            if (!attached) return self->fail(attached.error().message());
            (void)self->send(MonitorMessage::kNetworkReady, std::to_string(*attached));
            self->close();
        });
}

Result<> AttachSession::attach(std::string_view text, std::vector<UniqueFd> fds) {
    if (request_) return base::fail(Code::kInternal, "attached twice");
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("container") || !json["container"].is_string() ||
        !json.contains("process") || !json["process"].is_string()) {
        return base::fail(Code::kInternal, "malformed attach message");
    }
    auto request = std::make_unique<GuestProcessRequest>();
    request->container = json["container"].get<std::string>();
    request->process = json["process"].get<std::string>();
    request->terminal = json.value("terminal", false);
    ARCA_CHECK(base::validateId(request->container));
    ARCA_CHECK(base::validateId(request->process));
    const size_t streams = request->terminal ? 1 : 3;
    if (fds.size() != 1 + streams) return base::fail(Code::kInternal, "wrong descriptors");
    request->lease = std::move(fds[0]);
    for (size_t i = 0; i < streams; ++i) request->streams[i] = std::move(fds[1 + i]);
    request_ = std::move(request);
    return {};
}

Result<> AttachSession::prepare() {
    if (monitor_.shares()) {
        for (SharedTree& tree : trees_) {
            ARCA_CHECK(monitor_.share(request_->container, tree.name, tree.fd.get()));
        }
        trees_.clear();
    }
    ARCA_TRY(process_, monitor_.makeProcess(std::move(*request_)));
    const auto& ports = process_->request().ports;
    nlohmann::json answer = nlohmann::json::object();
    const std::array names{"stdin", "stdout", "stderr"};
    for (size_t i = 0; i < names.size(); ++i) {
        if (ports[i]) answer[names[i]] = *ports[i];
    }
    return send(MonitorMessage::kPrepared, answer.dump());
}

Result<> AttachSession::copy(std::string_view text) {
    const auto malformed = [] { return base::fail(Code::kInternal, "malformed copy message"); };
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) return malformed();
    const std::string name = json.value("name", "");
    const auto tree = std::find_if(trees_.begin(), trees_.end(),
                                   [&](const SharedTree& one) { return one.name == name; });
    const auto fidelity = fidelityOf(json.value("losses", ""));
    if (tree == trees_.end() || !fidelity) return malformed();
    TreeCopyRequest request;
    request.tree = std::move(tree->fd);
    trees_.erase(tree);
    request.guest_path = json.value("to", "");
    request.fidelity = *fidelity;
    request.limits.bytes = json.value("bytes", uint64_t{0});
    ARCA_TRY(copy_, monitor_.copy(std::move(request), [self = shared_from_this()](
                                                          const Result<archive::Packed>& packed) {
        self->copied(packed);
    }));
    return {};
}

void AttachSession::copied(const Result<archive::Packed>& packed) {
    copy_.reset();
    // The command went away meanwhile.
    if (!socket_.valid()) {
        takeBack(std::exchange(process_, nullptr));
        return monitor_.drop(*this);
    }
    if (packed) {
        if (!send(MonitorMessage::kCopied, std::to_string(packed->bytes))) close();
        return;
    }
    std::string why = packed.error().message();
    if (packed.error().code() == Code::kUnsupported) why += kAllowLosses;
    fail(why);
}

}  // namespace arca::runtime
