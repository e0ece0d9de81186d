#include "vsock/stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <string>
#include <utility>

#include "vsock/handshake.h"

namespace arca::vsock {
namespace {

using base::Result;

constexpr uint32_t kBaseEvents = EPOLLIN | EPOLLRDHUP | EPOLLET;

// sendmsg(2) that never waits and never raises SIGPIPE. -1 with errno as it is.
ssize_t sendParts(int fd, std::span<iovec> parts) {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    ssize_t n = 0;
    do {
        n = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n;
}

bool wouldBlock() {
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

}  // namespace

Stream::Stream(EventLoop& loop, StreamListener& listener, StreamKey key, Origin origin,
               uint32_t buffer_space)
    : listener_(listener),
      key_(key),
      phase_(origin == Origin::kHost ? Phase::kRequested : Phase::kOpen),
      socket_(loop, *this),
      timer_(loop, [this] { onTimeout(); }),
      credit_(buffer_space) {}

Result<> Stream::start(base::UniqueFd socket) {
    if (Result<> watched = socket_.open(std::move(socket), kBaseEvents); !watched) {
        phase_ = Phase::kDead;
        return watched;
    }
    if (phase_ == Phase::kRequested) {
        note(Op::kRequest);
        timer_.start(kRequestTimeout);
    } else {
        note(Op::kResponse);
    }
    return {};
}

void Stream::onCredit(uint32_t peer_space, uint32_t peer_forwarded) {
    credit_.onPeer(peer_space, peer_forwarded);
    if (credit_.sendable() > 0) credit_asked_ = false;
    // A guest that made its buffer smaller may wait for less than it was to be told of.
    if (phase_ == Phase::kOpen && credit_.updateDue()) note(Op::kCreditUpdate);
}

void Stream::onResponse() {
    if (phase_ != Phase::kRequested) {
        onViolation();
        return;
    }
    timer_.stop();
    phase_ = Phase::kOpen;
    // The first bytes in an empty socket buffer: all of them fit, or the client is gone.
    std::string line = acceptLine(key_.host_port);
    std::array<iovec, 1> part{iovec{line.data(), line.size()}};
    if (sendParts(socket_.fd(), part) != static_cast<ssize_t>(line.size())) resetGuest();
}

void Stream::onData(std::span<iovec> payload, uint32_t bytes) {
    if (phase_ == Phase::kRequested || (guest_shutdown_ & kNoMoreSend) != 0 ||
        !credit_.take(bytes)) {
        onViolation();
        return;
    }
    if (writing_done_) {
        // The guest was told; what was under way is dropped.
        credit_.forward(credit_.held());
    } else {
        ssize_t sent = 0;
        if (to_host_.empty() && bytes > 0) {
            sent = sendParts(socket_.fd(), payload);
            if (sent < 0 && !wouldBlock()) {
                hostGone();
                return;
            }
            sent = std::max<ssize_t>(sent, 0);
            credit_.forward(static_cast<uint32_t>(sent));
        }
        auto skip = static_cast<size_t>(sent);
        for (const iovec& part : payload) {
            const size_t skipped = std::min(skip, part.iov_len);
            skip -= skipped;
            to_host_.append(
                {static_cast<const std::byte*>(part.iov_base) + skipped, part.iov_len - skipped});
        }
        watchWritable();
    }
    if (phase_ == Phase::kOpen && credit_.updateDue()) note(Op::kCreditUpdate);
}

void Stream::onShutdown(uint32_t flags) {
    if (phase_ == Phase::kRequested) {
        onViolation();
        return;
    }
    guest_shutdown_ |= flags & kNoMoreAtAll;
    if (guest_shutdown_ == kNoMoreAtAll) {
        // The reset confirms the close. All that the guest sent is here, so it need not wait for
        // the host to read it.
        owes_reset_ = true;
        leaveGuest();
        return;
    }
    if (phase_ != Phase::kOpen) return;
    if ((flags & kNoMoreReceive) != 0 && !reading_done_) {
        reading_done_ = true;
        (void)::shutdown(socket_.fd(), SHUT_RD);  // the host's next write fails
    }
    if (to_host_.empty()) afterFlush();
    finishIfDone();
}

void Stream::onReset() {
    if (phase_ == Phase::kOpen) {
        leaveGuest();
    } else {
        die();
    }
}

void Stream::onCreditRequest() {
    if (phase_ == Phase::kOpen) note(Op::kCreditUpdate);
}

void Stream::onViolation() {
    resetGuest();
}

std::optional<Op> Stream::nextControl() {
    if (control_ == 0) return std::nullopt;
    // A request or response comes before all else, and the numbers of the rest do not matter.
    const auto lowest = static_cast<unsigned>(std::countr_zero(control_));
    control_ &= ~(1U << lowest);
    return static_cast<Op>(lowest);
}

bool Stream::takeOwedReset() {
    return std::exchange(owes_reset_, false);
}

bool Stream::readyToSend() {
    if (phase_ != Phase::kOpen || reading_done_ || !readable_) return false;
    if (credit_.sendable() > 0) return true;
    if (!credit_asked_) {
        credit_asked_ = true;
        note(Op::kCreditRequest);
    }
    return false;
}

uint32_t Stream::readFromHost(std::span<iovec> room) {
    size_t wanted = 0;
    for (const iovec& part : room) wanted += part.iov_len;
    msghdr message{};
    message.msg_iov = room.data();
    message.msg_iovlen = room.size();
    ssize_t n = 0;
    do {
        n = ::recvmsg(socket_.fd(), &message, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        credit_.send(static_cast<uint32_t>(n));
        // Less than asked for means that the socket is empty, and what comes later is an event
        // again. Two exceptions: the kernel stops at a message with descriptors (which it then
        // drops), and an end that has been announced already is not announced again.
        const bool cut = (static_cast<unsigned>(message.msg_flags) & MSG_CTRUNC) != 0;
        if (static_cast<size_t>(n) < wanted && !cut && !host_end_seen_) readable_ = false;
        return static_cast<uint32_t>(n);
    }
    if (n == 0) {
        hostEnded();
    } else if (wouldBlock()) {
        readable_ = false;
    } else {
        resetGuest();  // the host closed without reading all that the guest sent
    }
    return 0;
}

void Stream::detach() {
    if (phase_ == Phase::kOpen) {
        leaveGuest();
    } else if (phase_ != Phase::kDraining) {
        die();
    }
}

void Stream::abort() {
    die();
}

void Stream::onEvents(uint32_t events) {
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) host_end_seen_ = true;
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) host_hung_up_ = true;
    if (phase_ == Phase::kRequested) {
        if (host_hung_up_) resetGuest();
    } else {
        if (!to_host_.empty() && (host_hung_up_ || (events & EPOLLOUT) != 0)) flush();
        // The guest may go on reading what the host sent before it hung up, at its own pace.
        if (host_hung_up_) hostGone();
    }
    listener_.onStreamChanged(*this);
}

void Stream::onTimeout() {
    resetGuest();
    listener_.onStreamChanged(*this);
}

void Stream::flush() {
    while (!to_host_.empty()) {
        std::array<iovec, 2> parts = to_host_.parts();
        const ssize_t n = sendParts(socket_.fd(), parts);
        if (n < 0) {
            if (!wouldBlock()) hostGone();
            break;
        }
        to_host_.drop(static_cast<size_t>(n));
        credit_.forward(static_cast<uint32_t>(n));
    }
    if (to_host_.empty()) afterFlush();
    if (phase_ == Phase::kOpen && credit_.updateDue()) note(Op::kCreditUpdate);
    watchWritable();
}

void Stream::afterFlush() {
    if (phase_ == Phase::kDraining) {
        die();
    } else if (phase_ == Phase::kOpen && (guest_shutdown_ & kNoMoreSend) != 0 && !writing_done_) {
        writing_done_ = true;
        (void)::shutdown(socket_.fd(), SHUT_WR);
        finishIfDone();
    }
}

// The host takes no more bytes.
void Stream::hostGone() {
    to_host_.clear();
    credit_.forward(credit_.held());
    if (phase_ == Phase::kDraining) {
        die();
        return;
    }
    if (phase_ != Phase::kOpen) return;
    if (!writing_done_) {
        writing_done_ = true;
        told_shutdown_ |= kNoMoreReceive;
        note(Op::kShutdown);
    }
    watchWritable();
    finishIfDone();
}

// The host has sent its last byte, and the guest has it.
void Stream::hostEnded() {
    reading_done_ = true;
    told_shutdown_ |= kNoMoreSend;
    note(Op::kShutdown);
    finishIfDone();
}

void Stream::finishIfDone() {
    if (phase_ != Phase::kOpen || !reading_done_ || !writing_done_) return;
    phase_ = Phase::kClosing;
    told_shutdown_ = kNoMoreAtAll;
    note(Op::kShutdown);
    socket_.close();
    timer_.start(kCloseTimeout);
}

// From here on no packet of the guest is this stream's.
void Stream::leaveGuest() {
    control_ = 0;
    if (phase_ != Phase::kOpen || to_host_.empty()) {
        die();
        return;
    }
    phase_ = Phase::kDraining;
    reading_done_ = true;
    (void)::shutdown(socket_.fd(), SHUT_RD);
}

void Stream::die() {
    phase_ = Phase::kDead;
    control_ = 0;
    timer_.stop();
    to_host_.clear();
    socket_.close();
}

void Stream::resetGuest() {
    if (attached()) owes_reset_ = true;
    die();
}

void Stream::watchWritable() {
    const bool wanted = socket_.valid() && !to_host_.empty();
    if (wanted == watches_writable_ || !socket_.valid()) return;
    // Only while something waits: otherwise every read of the host would wake us.
    if (!socket_.setEvents(kBaseEvents | (wanted ? EPOLLOUT : 0U))) {
        resetGuest();
        return;
    }
    watches_writable_ = wanted;
}

}  // namespace arca::vsock
