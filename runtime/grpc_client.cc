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

#include "base/strings.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxResponseBytes = size_t{16} << 20U;
constexpr size_t kMaxHeaderBytes = size_t{64} << 10U;  // a hostile peer's error text ends here
constexpr uint32_t kWindowBytes = 1U << 20U;
constexpr size_t kFrameHeaderBytes = 5;  // gRPC: one flag byte, four bytes of length, big-endian

// Status numbers of the gRPC specification.
Code codeForStatus(int status) {
    switch (status) {
        case 3:   // INVALID_ARGUMENT
        case 11:  // OUT_OF_RANGE
            return Code::kInvalidArgument;
        case 4:
            return Code::kDeadlineExceeded;
        case 5:
            return Code::kNotFound;
        case 6:
            return Code::kAlreadyExists;
        case 7:
            return Code::kPermissionDenied;
        case 9:
            return Code::kFailedPrecondition;
        case 12:
            return Code::kUnsupported;
        case 1:   // CANCELLED
        case 14:  // UNAVAILABLE
            return Code::kUnavailable;
        default:
            return Code::kInternal;
    }
}

// grpc-message is percent-encoded; a broken escape is kept as it is.
std::string percentDecoded(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%' && i + 2 < text.size()) {
            if (const auto byte = base::parseNumber<unsigned>(text.substr(i + 1, 2), 16)) {
                out += static_cast<char>(*byte);
                i += 2;
                continue;
            }
        }
        out += text[i];
    }
    return out;
}

nghttp2_nv header(std::string_view name, std::string_view value) {
    // nghttp2 copies both before the call returns; its struct lacks const.
    return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
            reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
            NGHTTP2_NV_FLAG_NONE};
}

// One call under way: what goes out and what came in.
struct Stream {
    int32_t id = 0;
    std::string request;  // framed
    size_t sent = 0;
    std::string response;  // framed
    std::string http_status;
    std::optional<int> grpc_status;
    std::string grpc_message;
    size_t header_bytes = 0;
    bool closed = false;
    bool too_large = false;
    uint32_t error_code = 0;
};

}  // namespace

struct GrpcClient::Impl {
    base::UniqueFd socket;
    nghttp2_session* session = nullptr;
    Stream* current = nullptr;
    bool broken = false;

    ~Impl() { nghttp2_session_del(session); }

    Result<> start();
    Result<> flush();
    Result<> receive();
    Result<> poll(const CallOptions& options, Clock::time_point deadline);
};

namespace {

Stream* streamOf(void* user_data, int32_t stream_id) {
    Stream* stream = static_cast<GrpcClient::Impl*>(user_data)->current;
    return stream != nullptr && stream->id == stream_id ? stream : nullptr;
}

int onHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
             const uint8_t* value, size_t value_size, uint8_t, void* user_data) {
    Stream* stream = streamOf(user_data, frame->hd.stream_id);
    if (stream == nullptr) return 0;
    const std::string_view key(reinterpret_cast<const char*>(name), name_size);
    const std::string_view text(reinterpret_cast<const char*>(value), value_size);
    stream->header_bytes += name_size + value_size;
    if (stream->header_bytes > kMaxHeaderBytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (key == ":status") stream->http_status = text;
    if (key == "grpc-status") stream->grpc_status = base::parseNumber<int>(text).value_or(2);
    if (key == "grpc-message") stream->grpc_message = percentDecoded(text);
    return 0;
}

int onData(nghttp2_session* session, uint8_t, int32_t stream_id, const uint8_t* data, size_t size,
           void* user_data) {
    Stream* stream = streamOf(user_data, stream_id);
    if (stream == nullptr || stream->too_large) return 0;
    if (stream->response.size() + size > kMaxResponseBytes) {
        stream->too_large = true;
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
    }
    stream->response.append(reinterpret_cast<const char*>(data), size);
    return 0;
}

int onClose(nghttp2_session*, int32_t stream_id, uint32_t error_code, void* user_data) {
    Stream* stream = streamOf(user_data, stream_id);
    if (stream == nullptr) return 0;
    stream->closed = true;
    stream->error_code = error_code;
    return 0;
}

ssize_t readRequest(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                    nghttp2_data_source* source, void*) {
    auto* stream = static_cast<Stream*>(source->ptr);
    const size_t n = std::min(size, stream->request.size() - stream->sent);
    std::memcpy(buffer, stream->request.data() + stream->sent, n);
    stream->sent += n;
    if (stream->sent == stream->request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
}

// Takes the message out of the gRPC frame in `data`.
Result<> decodeResponse(const std::string& data, google::protobuf::MessageLite& response) {
    const auto byte = [&](size_t i) {
        return static_cast<uint32_t>(static_cast<unsigned char>(data[i]));
    };
    if (data.size() < kFrameHeaderBytes || byte(0) != 0) {
        return fail(Code::kInternal, "the agent's answer is not a gRPC message");
    }
    const uint32_t size = byte(1) << 24U | byte(2) << 16U | byte(3) << 8U | byte(4);
    if (data.size() != kFrameHeaderBytes + size) {
        return fail(Code::kInternal, "the agent's answer has a wrong length");
    }
    if (!response.ParseFromArray(data.data() + kFrameHeaderBytes, static_cast<int>(size))) {
        return fail(Code::kInternal, "the agent's answer is not the expected message");
    }
    return {};
}

Result<> outcomeOf(const Stream& stream, google::protobuf::MessageLite& response) {
    if (stream.too_large) {
        return fail(Code::kInternal, "the agent's answer is larger than " +
                                         std::to_string(kMaxResponseBytes) + " bytes");
    }
    if (!stream.grpc_status) {
        const Code code =
            stream.error_code == NGHTTP2_REFUSED_STREAM ? Code::kUnavailable : Code::kInternal;
        return fail(code, "the agent ended the call without a status (HTTP/2 error " +
                              std::to_string(stream.error_code) + ", HTTP status \"" +
                              base::printable(stream.http_status) + "\")");
    }
    if (*stream.grpc_status != 0) {
        std::string text = base::printable(stream.grpc_message);
        if (text.empty())
            text = "the agent answered gRPC status " + std::to_string(*stream.grpc_status);
        return fail(codeForStatus(*stream.grpc_status), std::move(text));
    }
    return decodeResponse(stream.response, response);
}

}  // namespace

Result<> GrpcClient::Impl::start() {
    nghttp2_session_callbacks* callbacks = nullptr;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return fail(Code::kInternal, "HTTP/2: no memory");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, onHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, onData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, onClose);
    const int made = nghttp2_session_client_new(&session, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    if (made != 0) return fail(Code::kInternal, std::string("HTTP/2: ") + nghttp2_strerror(made));
    const std::array<nghttp2_settings_entry, 3> settings{
        {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
         {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kMaxHeaderBytes}}};
    const int sent =
        nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    if (sent != 0) return fail(Code::kInternal, std::string("HTTP/2: ") + nghttp2_strerror(sent));
    return {};
}

// Writes what the session has to say until it is silent or the socket is full.
Result<> GrpcClient::Impl::flush() {
    while (true) {
        const uint8_t* data = nullptr;
        const ssize_t size = nghttp2_session_mem_send(session, &data);
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
    const ssize_t taken = nghttp2_session_mem_recv(session, buffer.data(), static_cast<size_t>(n));
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
    Stream stream;
    const size_t size = request.ByteSizeLong();
    stream.request.resize(kFrameHeaderBytes + size);
    for (size_t i = 0; i < 4; ++i) {
        stream.request[1 + i] = static_cast<char>(static_cast<uint32_t>(size) >> (24U - 8U * i));
    }
    if (!request.SerializeToArray(stream.request.data() + kFrameHeaderBytes,
                                  static_cast<int>(size))) {
        return fail(Code::kInternal, "cannot encode the request");
    }
    const std::array headers{header(":method", "POST"), header(":scheme", "http"),
                             header(":path", path),     header(":authority", "localhost"),
                             header("te", "trailers"),  header("content-type", "application/grpc")};
    nghttp2_data_provider body{};
    body.source.ptr = &stream;
    body.read_callback = readRequest;
    const int32_t id = nghttp2_submit_request(impl_->session, nullptr, headers.data(),
                                              headers.size(), &body, nullptr);
    if (id < 0) return fail(Code::kUnavailable, std::string("HTTP/2: ") + nghttp2_strerror(id));
    stream.id = id;
    impl_->current = &stream;
    const auto deadline =
        options.timeout ? Clock::now() + *options.timeout : Clock::time_point::max();
    Result<> result = impl_->flush();
    while (result && !stream.closed) {
        result = impl_->poll(options, deadline);
        if (result) result = impl_->flush();
    }
    if (!result && !stream.closed) {
        // Nobody waits for this answer any more, and the session must not touch `stream` again.
        (void)nghttp2_submit_rst_stream(impl_->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
        impl_->broken = result.error().code() == Code::kUnavailable || !impl_->flush();
    }
    impl_->current = nullptr;
    if (!result) return result;
    return outcomeOf(stream, response);
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
