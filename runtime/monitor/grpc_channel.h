// gRPC calls on an event loop, several at once over one connection: for the monitor, which waits
// for many processes of a guest and serves everything else meanwhile.
//
// The guest is hostile: whatever it sends ends in an error of a call or of the channel, within the
// limits of grpc_wire.cc. Loop thread only.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/grpc_wire.h"

namespace arca::runtime {

class GrpcChannel final : private GrpcSession {
 public:
    using Broken = std::function<void(const base::Error&)>;
    template <typename Response>
    using Answer = std::function<void(base::Result<Response>)>;

    // Takes a connected stream socket. `broken` is called once, by a task, when the connection ends
    // or the guest breaks the protocol; every call under way has failed by then.
    static base::Result<std::unique_ptr<GrpcChannel>> open(base::EventLoop& loop,
                                                           base::UniqueFd socket, Broken broken);
    ~GrpcChannel();

    // Calls `path`. `answer` is called once, always from the loop and never from inside this
    // function. `timeout`: kDeadlineExceeded then; nullopt only for WaitProcess.
    template <typename Response, typename Request>
    void call(std::string_view path, const Request& request,
              std::optional<std::chrono::milliseconds> timeout, Answer<Response> answer) {
        auto response = std::make_shared<Response>();
        start(path, request, timeout, response,
              [response, answer = std::move(answer)](base::Result<> done) {
                  if (!done) return answer(base::fail(std::move(done).error()));
                  answer(std::move(*response));
              });
    }

 private:
    struct Call {
        GrpcStream stream;
        std::shared_ptr<google::protobuf::MessageLite> response;
        std::function<void(base::Result<>)> done;
        base::Timer deadline;
    };
    using CallPtr = std::shared_ptr<Call>;

    GrpcChannel(base::EventLoop& loop, base::UniqueFd socket, Broken broken);
    base::Result<> start();
    void start(std::string_view path, const google::protobuf::MessageLite& request,
               std::optional<std::chrono::milliseconds> timeout,
               std::shared_ptr<google::protobuf::MessageLite> response,
               std::function<void(base::Result<>)> done);
    void expire(int32_t stream_id);
    void ready(uint32_t events);
    base::Result<> receive();
    // Sends what can be sent now.
    base::Result<> flush();
    void finishClosed();
    void breakOff(const base::Error& error);

    GrpcStream* findStream(int32_t stream_id) override;
    void streamClosed(int32_t stream_id) override;

    base::EventLoop& loop_;
    base::UniqueFd socket_;
    Broken broken_;
    std::map<int32_t, CallPtr> calls_;
    std::vector<CallPtr> closed_;  // ended inside a callback; told afterwards
    std::string unsent_;
    base::Watch watch_;
    bool watches_writing_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for tasks
};

}  // namespace arca::runtime
