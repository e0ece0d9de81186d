#include "runtime/grpc_client.h"

#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>

#include "base/log.h"
#include "base/strings.h"
#include "runtime/grpc_wire.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using Clock = std::chrono::steady_clock;

}  // namespace

struct GrpcClient::Impl final : GrpcSession {
    base::UniqueFd socket;
    GrpcStream* current = nullptr;
    GrpcStream held;  // of begin()
    bool broken = false;

    Result<> start() { return startSession(); }
    Result<> submit(std::string_view path, GrpcStream& stream) {
        ARCA_CHECK(submitGrpcRequest(session_, path, stream));
        current = &stream;
        return {};
    }
    void cancel(const GrpcStream& stream) {
        (void)nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_CANCEL);
    }
    Result<> flush();
    Result<> receive();
    Result<> poll(const CallOptions& options, Clock::time_point deadline);

 private:
    GrpcStream* findStream(int32_t stream_id) override {
        return current != nullptr && current->id == stream_id ? current : nullptr;
    }
    void streamClosed(int32_t) override {}
};

// Writes what the session has to say until it is silent or the socket is full.
Result<> GrpcClient::Impl::flush() {
    while (true) {
        const uint8_t* data = nullptr;
        const ssize_t size = nghttp2_session_mem_send(session_, &data);
        if (size < 0) {
            return fail(Code::kInternal,
                        std::string("HTTP/2: ") + nghttp2_strerror(static_cast<int>(size)));
        }
        if (size == 0) return {};
        // mem_send() must not be called again before these bytes are gone, so a full socket is
        // waited for here; our requests are at most some hundred KiB.
        size_t done = 0;
        while (done < static_cast<size_t>(size)) {
            const ssize_t n =
                ::send(socket.get(), data + done, static_cast<size_t>(size) - done, MSG_NOSIGNAL);
            if (n >= 0) {
                done += static_cast<size_t>(n);
                continue;
            }
            if (errno == EINTR) continue;
            if (errno != EAGAIN)
                return fail(Code::kUnavailable, "the agent closed the connection", errno);
            pollfd entry{socket.get(), POLLOUT, 0};
            constexpr int kStuckMs = 30000;
            if (::poll(&entry, 1, kStuckMs) == 0) {
                return fail(Code::kUnavailable, "the agent does not read its connection");
            }
        }
    }
}

Result<> GrpcClient::Impl::receive() {
    std::array<uint8_t, 16384> buffer;
    const ssize_t n = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (n <= 0)
        return fail(Code::kUnavailable, "the agent closed the connection", n < 0 ? errno : 0);
    const ssize_t taken = nghttp2_session_mem_recv(session_, buffer.data(), static_cast<size_t>(n));
    if (taken < 0) {
        return fail(Code::kInternal, std::string("the agent does not speak HTTP/2: ") +
                                         nghttp2_strerror(static_cast<int>(taken)));
    }
    return {};
}

Result<> GrpcClient::Impl::poll(const CallOptions& options, Clock::time_point deadline) {
    std::vector<pollfd> entries{{socket.get(), POLLIN, 0}};
    for (const Watch& watch : options.watches) entries.push_back({watch.fd, POLLIN, 0});
    int wait_ms = -1;
    if (options.timeout) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) return fail(Code::kDeadlineExceeded, "the agent did not answer in time");
        wait_ms = static_cast<int>(left);
    }
    if (::poll(entries.data(), entries.size(), wait_ms) < 0) {
        if (errno == EINTR) return {};
        return failErrno("poll");
    }
    for (size_t i = 0; i < options.watches.size(); ++i) {
        if (entries[i + 1].revents != 0) ARCA_CHECK(options.watches[i].ready());
    }
    if (entries[0].revents != 0) return receive();
    return {};
}

GrpcClient::GrpcClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrpcClient::~GrpcClient() = default;

Result<std::unique_ptr<GrpcClient>> GrpcClient::open(base::UniqueFd socket) {
    if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0) return failErrno("set O_NONBLOCK");
    auto impl = std::make_unique<Impl>();
    impl->socket = std::move(socket);
    ARCA_CHECK(impl->start());
    return std::unique_ptr<GrpcClient>(new GrpcClient(std::move(impl)));
}

Result<> GrpcClient::call(std::string_view path, const google::protobuf::MessageLite& request,
                          google::protobuf::MessageLite& response, const CallOptions& options) {
    if (impl_->broken) return fail(Code::kUnavailable, "the connection to the agent is broken");
    GrpcStream stream;
    ARCA_TRY(stream.request, frameRequest(request));
    ARCA_CHECK(impl_->submit(path, stream));
    const auto deadline =
        options.timeout ? Clock::now() + *options.timeout : Clock::time_point::max();
    Result<> result = impl_->flush();
    while (result && !stream.closed) {
        result = impl_->poll(options, deadline);
        if (result) result = impl_->flush();
    }
    if (!result && !stream.closed) {
        // Nobody waits for this answer any more, and the session must not touch `stream` again.
        impl_->cancel(stream);
        impl_->broken = result.error().code() == Code::kUnavailable || !impl_->flush();
    }
    impl_->current = nullptr;
    for (const std::string& text : stream.warnings) base::log::warning(base::printable(text));
    if (!result) return result;
    return outcomeOf(stream, response);
}

Result<> GrpcClient::begin(std::string_view path, const google::protobuf::MessageLite& request) {
    ARCA_TRY(impl_->held.request, frameRequest(request));
    ARCA_CHECK(impl_->submit(path, impl_->held));
    return impl_->flush();
}

Result<GrpcClient::Next> GrpcClient::next(google::protobuf::MessageLite& response) {
    GrpcStream& stream = impl_->held;
    ARCA_TRY(const bool there, takeMessage(stream, response));
    if (there) return Next::kMessage;
    if (!stream.closed) {
        ARCA_CHECK(impl_->receive());
        ARCA_CHECK(impl_->flush());
    }
    ARCA_TRY(const bool came, takeMessage(stream, response));
    if (came) return Next::kMessage;
    if (!stream.closed) return Next::kNothing;
    ARCA_CHECK(statusOf(stream));
    return Next::kEnd;
}

int GrpcClient::fd() const {
    return impl_->socket.get();
}

std::string innermostMessage(std::string_view message) {
    // <rpc>: failed to <verb> process: <code>: "<text>"
    while (true) {
        const size_t marker = message.find(": failed to ");
        const size_t open = message.find(": \"");
        if (marker == std::string_view::npos || open == std::string_view::npos || open < marker)
            break;
        const size_t close = message.rfind('"');
        if (close <= open + 2) break;
        message = message.substr(open + 3, close - open - 3);
    }
    return std::string(message);
}

}  // namespace arca::runtime
