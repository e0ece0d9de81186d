#include "runtime/drivers/attachment.h"

#include <poll.h>

#include <cerrno>

#include "base/socket.h"
#include "base/strings.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using proto::MonitorMessage;

Result<> Attachment::send(MonitorMessage type, std::string_view text, const std::vector<int>& fds) {
    return base::sendMessage(socket_.get(), proto::encodeMonitorMessage(type, text), fds);
}

Result<std::string> Attachment::await(MonitorMessage type, std::chrono::milliseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    ARCA_CHECK(waitReadable(deadline));
    ARCA_TRY(auto message, base::receiveMessage(socket_.get()));
    if (!message) return fail(Code::kUnavailable, "the sandbox's monitor is gone");
    const auto packet = proto::decodeMonitorMessage(message->data);
    if (packet && packet->type == MonitorMessage::kFailure) {
        return fail(Code::kUnavailable, base::printable(packet->text));
    }
    if (packet && packet->type == type) return std::string(packet->text);
    return fail(Code::kInternal, "the sandbox's monitor sent an unexpected message");
}

Result<> Attachment::receiveUnasked() {
    auto answer = await(MonitorMessage::kFailure, std::chrono::seconds(1));
    if (!answer) return fail(std::move(answer).error());
    return {};
}

Result<> Attachment::waitReadable(std::chrono::steady_clock::time_point deadline) {
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            return fail(Code::kDeadlineExceeded, "the sandbox's monitor does not answer");
        }
        pollfd entries[2] = {{socket_.get(), POLLIN, 0},
                             {signals_ != nullptr ? signals_->interruptFd() : -1, POLLIN, 0}};
        if (::poll(entries, 2, static_cast<int>(left.count())) < 0) {
            if (errno == EINTR) continue;
            return failErrno("poll");
        }
        if (entries[1].revents != 0) ARCA_CHECK(signals_->checkInterrupt());
        if (entries[0].revents != 0) return {};
    }
}

}  // namespace arca::runtime
