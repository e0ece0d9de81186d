// gRPC over HTTP/2, the parts that do not depend on how a connection is driven: framing, headers,
// status. Shared by the CLI's blocking client and the monitor's channel on an event loop.
#pragma once

#include <google/protobuf/message_lite.h>
#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::runtime {

// One call under way: what goes out and what came in.
struct GrpcStream {
    int32_t id = 0;
    std::string request;  // framed
    size_t sent = 0;
    std::string response;  // framed
    std::string http_status;
    std::optional<int> grpc_status;
    std::string grpc_message;
    std::vector<std::string> warnings;  // of the agent, for whoever made the call
    size_t header_bytes = 0;
    bool closed = false;
    bool too_large = false;
    uint32_t error_code = 0;  // of HTTP/2, once closed

    // One header that came. False: there are more than any honest agent sends.
    bool takeHeader(std::string_view name, std::string_view value);
    // Bytes of the answer. False: there are too many.
    bool takeData(std::string_view data);
};

// The message in a gRPC frame. kInternal when it cannot be encoded.
base::Result<std::string> frameRequest(const google::protobuf::MessageLite& request);

// Takes the first of several messages that have come; false when there is no whole one.
base::Result<bool> takeMessage(GrpcStream& stream, google::protobuf::MessageLite& response);

// Of a closed stream: the agent's error, or what was wrong with its answer.
base::Result<> statusOf(const GrpcStream& stream);

// What a closed stream amounts to: `response` filled, or the agent's error, or what was wrong with
// its answer.
base::Result<> outcomeOf(const GrpcStream& stream, google::protobuf::MessageLite& response);

// An HTTP/2 session of a client, with the limits that all of ours have. Whoever drives the
// connection derives from it and moves the bytes.
class GrpcSession {
 public:
    GrpcSession() = default;
    GrpcSession(const GrpcSession&) = delete;
    GrpcSession& operator=(const GrpcSession&) = delete;

 protected:
    ~GrpcSession() { nghttp2_session_del(session_); }

    // Makes the session and submits its settings.
    base::Result<> startSession();
    // The call under way with this number, or nullptr.
    virtual GrpcStream* findStream(int32_t stream_id) = 0;
    // Has just been closed; its outcome stands in it.
    virtual void streamClosed(int32_t stream_id) = 0;

    nghttp2_session* session_ = nullptr;

 private:
    static int onHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                        size_t name_size, const uint8_t* value, size_t value_size, uint8_t flags,
                        void* self);
    static int onData(nghttp2_session* session, uint8_t flags, int32_t stream_id,
                      const uint8_t* data, size_t size, void* self);
    static int onClose(nghttp2_session* session, int32_t stream_id, uint32_t error_code,
                       void* self);
};

// Submits a request for `path` whose body is `stream`, which must not move; sets stream.id.
base::Result<> submitGrpcRequest(nghttp2_session* session, std::string_view path,
                                 GrpcStream& stream);

}  // namespace arca::runtime
