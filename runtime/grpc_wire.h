// gRPC over HTTP/2, the parts that do not depend on how a connection is driven: framing, headers,
// status. Shared by the CLI's blocking client and the monitor's channel on an event loop.
#pragma once

#include <google/protobuf/message_lite.h>
#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

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

// What a closed stream amounts to: `response` filled, or the agent's error, or what was wrong with
// its answer.
base::Result<> outcomeOf(const GrpcStream& stream, google::protobuf::MessageLite& response);

// Makes a session of a client with the limits that all of ours have, its settings submitted.
// `callbacks` stays the caller's.
base::Result<nghttp2_session*> newGrpcSession(nghttp2_session_callbacks* callbacks,
                                              void* user_data);

// Submits a request for `path` whose body is `stream`, which must not move; sets stream.id.
base::Result<> submitGrpcRequest(nghttp2_session* session, std::string_view path,
                                 GrpcStream& stream);

}  // namespace arca::runtime
