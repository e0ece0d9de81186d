#include "runtime/grpc_wire.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error_texts.h"
#include "base/strings.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

namespace {

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

ssize_t readRequest(nghttp2_session*, int32_t, uint8_t* buffer, size_t size, uint32_t* flags,
                    nghttp2_data_source* source, void*) {
    auto* stream = static_cast<GrpcStream*>(source->ptr);
    const size_t n = std::min(size, stream->request.size() - stream->sent);
    std::memcpy(buffer, stream->request.data() + stream->sent, n);
    stream->sent += n;
    if (stream->sent == stream->request.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(n);
}

// The length in the header of the gRPC frame at the start of `data`.
Result<uint32_t> frameLength(const std::string& data) {
    const auto byte = [&](size_t i) {
        return static_cast<uint32_t>(static_cast<unsigned char>(data[i]));
    };
    if (data.size() < kFrameHeaderBytes || byte(0) != 0) {
        return fail(Code::kInternal, "the agent's answer is not a gRPC message");
    }
    return byte(1) << 24U | byte(2) << 16U | byte(3) << 8U | byte(4);
}

Result<> parseMessage(const std::string& data, uint32_t size,
                      google::protobuf::MessageLite& response) {
    if (response.ParseFromArray(data.data() + kFrameHeaderBytes, static_cast<int>(size))) return {};
    return fail(Code::kInternal, "the agent's answer is not the expected message");
}

// Takes the message out of the gRPC frame in `data`.
Result<> decodeResponse(const std::string& data, google::protobuf::MessageLite& response) {
    ARCA_TRY(const uint32_t size, frameLength(data));
    if (data.size() != kFrameHeaderBytes + size) {
        return fail(Code::kInternal, "the agent's answer has a wrong length");
    }
    return parseMessage(data, size, response);
}

}  // namespace

bool GrpcStream::takeHeader(std::string_view name, std::string_view value) {
    header_bytes += name.size() + value.size();
    if (header_bytes > kMaxHeaderBytes) return false;
    if (name == ":status") http_status = value;
    if (name == "grpc-status") grpc_status = base::parseNumber<int>(value).value_or(2);
    if (name == "grpc-message") grpc_message = percentDecoded(value);
    if (name == base::texts::kWarningMetadata) warnings.emplace_back(value);
    return true;
}

bool GrpcStream::takeData(std::string_view data) {
    if (too_large) return true;
    if (response.size() + data.size() > kMaxResponseBytes) {
        too_large = true;
        return false;
    }
    response.append(data);
    return true;
}

Result<std::string> frameRequest(const google::protobuf::MessageLite& request) {
    const size_t size = request.ByteSizeLong();
    std::string framed(kFrameHeaderBytes + size, '\0');
    for (size_t i = 0; i < 4; ++i) {
        framed[1 + i] = static_cast<char>(static_cast<uint32_t>(size) >> (24U - 8U * i));
    }
    if (!request.SerializeToArray(framed.data() + kFrameHeaderBytes, static_cast<int>(size))) {
        return fail(Code::kInternal, "cannot encode the request");
    }
    return framed;
}

Result<bool> takeMessage(GrpcStream& stream, google::protobuf::MessageLite& response) {
    if (stream.response.size() < kFrameHeaderBytes) return false;
    ARCA_TRY(const uint32_t size, frameLength(stream.response));
    if (size > kMaxResponseBytes) {
        return fail(Code::kInternal, "the agent's answer has a wrong length");
    }
    if (stream.response.size() < kFrameHeaderBytes + size) return false;
    ARCA_CHECK(parseMessage(stream.response, size, response));
    stream.response.erase(0, kFrameHeaderBytes + size);
    return true;
}

Result<> statusOf(const GrpcStream& stream) {
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
        // A hostile agent may say much; what it says is printed as one line.
        constexpr size_t kMostText = 1024;
        std::string text = base::printable(stream.grpc_message.substr(0, kMostText));
        if (stream.grpc_message.size() > kMostText) text += "...";
        if (text.empty())
            text = "the agent answered gRPC status " + std::to_string(*stream.grpc_status);
        return fail(codeForStatus(*stream.grpc_status), std::move(text));
    }
    return {};
}

Result<> outcomeOf(const GrpcStream& stream, google::protobuf::MessageLite& response) {
    ARCA_CHECK(statusOf(stream));
    return decodeResponse(stream.response, response);
}

Result<> GrpcSession::startSession() {
    nghttp2_session_callbacks* callbacks = nullptr;
    if (nghttp2_session_callbacks_new(&callbacks) != 0) {
        return fail(Code::kInternal, "HTTP/2: no memory");
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks, &GrpcSession::onHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &GrpcSession::onData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &GrpcSession::onClose);
    const int made = nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    if (made != 0) return fail(Code::kInternal, std::string("HTTP/2: ") + nghttp2_strerror(made));
    const std::array<nghttp2_settings_entry, 3> settings{
        {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
         {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kMaxHeaderBytes}}};
    const int sent =
        nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    if (sent != 0) return fail(Code::kInternal, std::string("HTTP/2: ") + nghttp2_strerror(sent));
    return {};
}

int GrpcSession::onHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                          size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                          void* self) {
    GrpcStream* stream = static_cast<GrpcSession*>(self)->findStream(frame->hd.stream_id);
    if (stream == nullptr) return 0;
    const bool taken = stream->takeHeader({reinterpret_cast<const char*>(name), name_size},
                                          {reinterpret_cast<const char*>(value), value_size});
    return taken ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

int GrpcSession::onData(nghttp2_session* session, uint8_t, int32_t stream_id, const uint8_t* data,
                        size_t size, void* self) {
    GrpcStream* stream = static_cast<GrpcSession*>(self)->findStream(stream_id);
    if (stream == nullptr || stream->takeData({reinterpret_cast<const char*>(data), size})) {
        return 0;
    }
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
}

int GrpcSession::onClose(nghttp2_session*, int32_t stream_id, uint32_t error_code, void* self) {
    auto* owner = static_cast<GrpcSession*>(self);
    GrpcStream* stream = owner->findStream(stream_id);
    if (stream == nullptr) return 0;
    stream->closed = true;
    stream->error_code = error_code;
    owner->streamClosed(stream_id);
    return 0;
}

Result<> submitGrpcRequest(nghttp2_session* session, std::string_view path, GrpcStream& stream) {
    const std::array headers{header(":method", "POST"), header(":scheme", "http"),
                             header(":path", path),     header(":authority", "localhost"),
                             header("te", "trailers"),  header("content-type", "application/grpc")};
    nghttp2_data_provider body{};
    body.source.ptr = &stream;
    body.read_callback = readRequest;
    const int32_t id =
        nghttp2_submit_request(session, nullptr, headers.data(), headers.size(), &body, nullptr);
    if (id < 0) return fail(Code::kUnavailable, std::string("HTTP/2: ") + nghttp2_strerror(id));
    stream.id = id;
    return {};
}

}  // namespace arca::runtime
