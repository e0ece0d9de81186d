// Unary gRPC calls over one connected socket: HTTP/2 by libnghttp2, messages by protobuf-lite.
//
// Why not grpc++ here: a command lives for milliseconds, and grpc++ spends more than that on its
// threads before the first byte is sent; a process without threads can also fork freely. One call
// at a time; not thread-safe.
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

// Something else to serve while a call is under way (hook requests of the agent, a dying body).
struct Watch {
    int fd;  // borrowed
    std::function<base::Result<>()>
        ready;  // called when fd is readable; an error ends the call with it
};

struct CallOptions {
    // Without one a call waits for ever: only WaitProcess does that.
    std::optional<std::chrono::milliseconds> timeout = std::chrono::seconds(60);
    std::vector<Watch> watches;
};

class GrpcClient {
 public:
    struct Impl;  // the connection's state; for the callbacks in the .cc only

    // Takes a connected stream socket. No byte is sent before the first call.
    static base::Result<std::unique_ptr<GrpcClient>> open(base::UniqueFd socket);
    ~GrpcClient();

    // Calls `path` ("/package.Service/Method"). Fails with the Code that belongs to the status the
    // server sent and its message; kUnavailable when the connection breaks; kDeadlineExceeded when
    // `timeout` passes (the stream is reset, the connection stays usable); kInternal when the peer
    // does not speak gRPC.
    base::Result<> call(std::string_view path, const google::protobuf::MessageLite& request,
                        google::protobuf::MessageLite& response, const CallOptions& options = {});

    // Begins a call whose answers come one after the other. The connection serves no other then.
    base::Result<> begin(std::string_view path, const google::protobuf::MessageLite& request);
    // Of the call that was begun: takes one more answer if it has come. Does not wait. kEnd: that
    // was all; a call that ended with an error is that error.
    enum class Next { kMessage, kNothing, kEnd };
    base::Result<Next> next(google::protobuf::MessageLite& response);
    // For poll(2).
    [[nodiscard]] int fd() const;

 private:
    explicit GrpcClient(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// The innermost text of an agent's error: `createProcess: failed to create process: notFound: "x"`
// gives `x`; other texts are given back as they are.
std::string innermostMessage(std::string_view message);

}  // namespace arca::runtime
