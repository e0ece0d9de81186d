#include "vminitd/process_start.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "base/log.h"
#include "base/socket.h"
#include "base/unique_fd.h"
#include "proto/body_protocol.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;

namespace {

class Start : public std::enable_shared_from_this<Start> {
 public:
    Start(UniqueFd gate, StartRequest request)
        : gate_(std::move(gate)), request_(std::move(request)) {}

    void begin(EventLoop& loop) {
        std::string text;
        const auto& size = request_.size;
        if (size) text = std::to_string(size->rows) + " " + std::to_string(size->columns);
        auto begun = base::sendMessage(
            gate_.get(), proto::encodeBodyMessage(BodyMessage::kStart, size ? 1 : 0, text));
        if (begun) {
            auto watch = Watch::make(loop, gate_.get(), EPOLLIN,
                                     [self = shared_from_this()](uint32_t) { self->receive(); });
            if (watch) {
                watch_ = std::move(*watch);
                return;
            }
            begun = fail(std::move(watch).error());
        }
        finish(std::move(begun));
    }

 private:
    void receive() {
        const auto keep = shared_from_this();
        auto message = base::receiveMessage(gate_.get());
        // The end of the stream, however it comes: the descriptor was closed by exec.
        if (!message || !*message) return finish({});
        const auto packet = proto::decodeBodyMessage((*message)->data);
        if (packet && packet->type == BodyMessage::kWarning) {
            return base::log::warning(packet->text);
        }
        if (packet && packet->type == BodyMessage::kFailure) {
            return finish(fail(Code::kInternal, std::string(packet->text), packet->value));
        }
        if (packet && packet->type == BodyMessage::kListener && (*message)->fds.size() == 1) {
            auto passed = request_.seccomp_listener(std::move((*message)->fds.front()));
            if (!passed) return finish(std::move(passed));
            // A process that has died meanwhile is told by the end of the stream.
            (void)base::sendMessage(gate_.get(),
                                    proto::encodeBodyMessage(BodyMessage::kListenerPassed));
            return;
        }
        finish(fail(Code::kInternal, "malformed message from the gate"));
    }

    void finish(Result<> result) {
        watch_.reset();
        const auto done = std::exchange(request_.done, nullptr);
        if (done) done(std::move(result));
    }

    UniqueFd gate_;
    StartRequest request_;
    Watch watch_;
};

}  // namespace

GateState probeGate(int dir_fd, const std::string& name) {
    return base::connectUnix(dir_fd, name, SOCK_SEQPACKET) ? GateState::kWaiting
                                                           : GateState::kOpened;
}

void startAtGate(EventLoop& loop, StartRequest request) {
    auto gate = base::connectUnix(request.folder_fd, request.gate, SOCK_SEQPACKET);
    if (!gate) {
        const bool nobody = gate.error().code() == Code::kUnavailable;
        return request.done(fail(nobody ? Code::kFailedPrecondition : gate.error().code(),
                                 nobody ? "nobody waits at the gate" : gate.error().message()));
    }
    std::make_shared<Start>(std::move(*gate), std::move(request))->begin(loop);
}

}  // namespace arca::vminitd
