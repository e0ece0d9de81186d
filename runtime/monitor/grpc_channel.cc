#include "runtime/monitor/grpc_channel.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

namespace arca::runtime {

using base::Code;
using base::Error;
using base::fail;
using base::failErrno;
using base::Result;

namespace {

// What a guest that does not read may make us keep.
constexpr size_t kMaxUnsentBytes = size_t{4} << 20U;

Error http2Error(int code) {
    return {Code::kInternal,
            std::string("the guest does not speak HTTP/2: ") + nghttp2_strerror(code)};
}

}  // namespace

GrpcChannel::GrpcChannel(base::EventLoop& loop, base::UniqueFd socket, Broken broken)
    : loop_(loop), socket_(std::move(socket)), broken_(std::move(broken)) {}

GrpcChannel::~GrpcChannel() {
    *alive_ = false;
}

Result<std::unique_ptr<GrpcChannel>> GrpcChannel::open(base::EventLoop& loop, base::UniqueFd socket,
                                                       Broken broken) {
    if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0) return failErrno("set O_NONBLOCK");
    std::unique_ptr<GrpcChannel> channel(
        new GrpcChannel(loop, std::move(socket), std::move(broken)));
    ARCA_CHECK(channel->start());
    return channel;
}

Result<> GrpcChannel::start() {
    ARCA_CHECK(startSession());
    ARCA_TRY(watch_, base::Watch::make(loop_, socket_.get(), EPOLLIN,
                                       [this](uint32_t events) { ready(events); }));
    return flush();
}

void GrpcChannel::start(std::string_view path, const google::protobuf::MessageLite& request,
                        std::optional<std::chrono::milliseconds> timeout,
                        std::shared_ptr<google::protobuf::MessageLite> response,
                        std::function<void(Result<>)> done) {
    auto call = std::make_shared<Call>();
    call->response = std::move(response);
    call->done = std::move(done);
    const auto failLater = [&](Error error) {
        loop_.post([call, error = std::move(error)] { call->done(fail(Error(error))); });
    };
    if (!socket_.valid()) return failLater({Code::kUnavailable, "the guest is gone"});
    auto framed = frameRequest(request);
    if (!framed) return failLater(std::move(framed).error());
    call->stream.request = std::move(*framed);
    auto submitted = submitGrpcRequest(session_, path, call->stream);
    if (!submitted) return failLater(std::move(submitted).error());
    const int32_t id = call->stream.id;
    calls_.emplace(id, call);
    if (timeout) {
        call->deadline = base::Timer(loop_, *timeout, [this, id] { expire(id); });
    }
    auto sent = flush();
    if (sent) return;
    // By a task: `done` must not be called from in here.
    loop_.post([this, alive = alive_, error = std::move(sent).error()] {
        if (*alive) breakOff(error);
    });
}

void GrpcChannel::expire(int32_t stream_id) {
    const auto found = calls_.find(stream_id);
    if (found == calls_.end()) return;
    // The call stays until the session has let go of its stream; nobody is told a second time.
    const auto done = std::exchange(found->second->done, [](const Result<>&) {});
    (void)nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
    auto sent = flush();
    const auto alive = alive_;
    done(fail(Code::kDeadlineExceeded, "the guest did not answer in time"));
    if (*alive && !sent) breakOff(sent.error());
}

void GrpcChannel::ready(uint32_t events) {
    const auto alive = alive_;
    Result<> done;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) done = receive();
    if (done) done = flush();
    finishClosed();
    if (*alive && !done) breakOff(done.error());
}

Result<> GrpcChannel::receive() {
    std::array<uint8_t, 16384> buffer;
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (n <= 0) return fail(Code::kUnavailable, "the guest closed the connection");
    const ssize_t taken = nghttp2_session_mem_recv(session_, buffer.data(), static_cast<size_t>(n));
    if (taken < 0) return fail(http2Error(static_cast<int>(taken)));
    return {};
}

Result<> GrpcChannel::flush() {
    while (true) {
        while (!unsent_.empty()) {
            const ssize_t n = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
            if (n >= 0) {
                unsent_.erase(0, static_cast<size_t>(n));
                continue;
            }
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return fail(Code::kUnavailable, "the guest closed the connection");
            if (unsent_.size() > kMaxUnsentBytes) {
                return fail(Code::kUnavailable, "the guest does not read its connection");
            }
            if (!watches_writing_) watch_.change(EPOLLIN | EPOLLOUT);
            watches_writing_ = true;
            return {};
        }
        const uint8_t* data = nullptr;
        const ssize_t size = nghttp2_session_mem_send(session_, &data);
        if (size < 0) return fail(http2Error(static_cast<int>(size)));
        if (size == 0) break;
        unsent_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    }
    if (watches_writing_) watch_.change(EPOLLIN);
    watches_writing_ = false;
    return {};
}

void GrpcChannel::finishClosed() {
    const auto alive = alive_;
    for (const CallPtr& call : std::exchange(closed_, {})) {
        call->deadline.reset();
        call->done(outcomeOf(call->stream, *call->response));
        if (!*alive) return;
    }
}

void GrpcChannel::breakOff(const Error& error) {
    if (!socket_.valid()) return;
    watch_.reset();
    socket_.reset();
    const auto alive = alive_;
    const auto broken = std::exchange(broken_, nullptr);
    for (const auto& [id, call] : std::exchange(calls_, {})) {
        call->deadline.reset();
        call->done(fail(Code::kUnavailable, error.message()));
        if (!*alive) return;
    }
    if (broken) broken(error);
}

GrpcStream* GrpcChannel::findStream(int32_t stream_id) {
    const auto found = calls_.find(stream_id);
    return found == calls_.end() ? nullptr : &found->second->stream;
}

void GrpcChannel::streamClosed(int32_t stream_id) {
    // Told after the session has returned: whoever is told may start another call.
    closed_.push_back(std::move(calls_.extract(stream_id).mapped()));
}

}  // namespace arca::runtime
