#include "hooks/tap_forwarder/relay.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "base/thread.h"

namespace arca::tap_forwarder {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

size_t longestFrame(VnetHeader vnet_header) {
    return vnet_header == VnetHeader::kYes ? base::kMaxVnetFrame : base::kMaxFrame;
}

bool wouldBlock(int error) {
    return error == EAGAIN || error == EWOULDBLOCK;
}

}  // namespace

// A frame longer than the wire allows (one of the longest kind, with a VLAN tag) must be told from
// one that fits, so that there is more room than that.
Relay::Relay(Parts parts)
    : parts_(std::move(parts)),
      max_frame_(longestFrame(parts_.vnet_header)),
      to_host_(base::kMaxVnetFrame),
      from_host_(max_frame_) {}

Result<std::unique_ptr<Relay>> Relay::start(Parts parts) {
    std::unique_ptr<Relay> relay(new Relay(std::move(parts)));
    if (relay->stop_.fd() < 0) return failErrno("eventfd");
    ARCA_TRY(relay->thread_, base::startThread([raw = relay.get()] { raw->run(); }));
    return relay;
}

Relay::~Relay() {
    (void)stop_.set();
    if (thread_.joinable()) thread_.join();
}

void Relay::run() {
    while (!stop_.isSet()) waitAndServe();
}

void Relay::waitAndServe() {
    // What is waiting for the stream comes first: nothing more is read from the device until then.
    const bool writes = !to_host_.empty();
    const int device = host_.valid() && !writes ? parts_.device.get() : -1;
    std::array<pollfd, 4> entries{
        pollfd{stop_.fd(), POLLIN, 0},
        pollfd{parts_.listener ? parts_.listener->fd() : -1, POLLIN, 0},
        pollfd{host_.get(), static_cast<int16_t>(POLLIN | (writes ? POLLOUT : 0)), 0},
        pollfd{device, POLLIN, 0},
    };
    if (::poll(entries.data(), entries.size(), -1) <= 0) return;
    if (entries[1].revents != 0) return acceptHost();
    if ((entries[2].revents & ~POLLOUT) != 0) fromStream();
    if (host_.valid() && ((entries[2].revents & POLLOUT) != 0 || entries[3].revents != 0)) {
        fromDevice();
    }
}

void Relay::acceptHost() {
    auto accepted = parts_.listener->accept();
    if (!accepted) {
        return base::log::warning(parts_.name + ": " + accepted.error().message());
    }
    const int flags = ::fcntl(accepted->get(), F_GETFL);
    if (flags < 0 || ::fcntl(accepted->get(), F_SETFL, flags | O_NONBLOCK) != 0) {
        return base::log::warning(parts_.name + ": set O_NONBLOCK: " + base::errnoText(errno));
    }
    if (host_.valid()) endConnection("a new connection takes over");
    host_ = std::move(*accepted);
    base::log::info(parts_.name + ": the host is connected");
    if (parts_.connected) parts_.connected();
}

void Relay::endConnection(const std::string& reason) {
    base::log::info(parts_.name + ": connection ended: " + reason);
    host_.reset();
    // A part of a frame is of no use to the next connection.
    to_host_.clear();
    from_host_.clear();
}

void Relay::giveUp(const std::string& reason) {
    base::log::error(parts_.name + ": " + reason);
    if (host_.valid()) endConnection("the device is gone");
    parts_.listener.reset();
    (void)stop_.set();
}

void Relay::fromDevice() {
    if (!flush()) return;
    uint64_t packets = 0;
    uint64_t bytes = 0;
    int error = 0;
    while (error == 0) {
        const std::span<uint8_t> room = to_host_.room();
        if (room.empty()) break;
        const ssize_t n = ::read(parts_.device.get(), room.data(), room.size());
        if (n > 0 && static_cast<size_t>(n) <= max_frame_) {
            to_host_.commit(static_cast<size_t>(n));
            ++packets;
            bytes += static_cast<size_t>(n);
        } else if (n > 0) {
            counters_.sendErrors(1);
        } else if (n == 0 || errno != EINTR) {
            error = n == 0 ? ENODEV : errno;
        }
    }
    counters_.sent(packets, bytes);
    (void)flush();
    if (error != 0 && !wouldBlock(error)) giveUp("read from the device: " + base::errnoText(error));
}

bool Relay::flush() {
    while (!to_host_.empty()) {
        const auto pending = to_host_.pending();
        const ssize_t n = ::send(host_.get(), pending.data(), pending.size(), MSG_NOSIGNAL);
        if (n > 0) {
            to_host_.wrote(static_cast<size_t>(n));
        } else if (n < 0 && wouldBlock(errno)) {
            return false;
        } else if (n == 0 || errno != EINTR) {
            endConnection(base::errnoText(errno));
            return false;
        }
    }
    return true;
}

void Relay::fromStream() {
    const std::span<uint8_t> space = from_host_.space();
    const ssize_t n = ::recv(host_.get(), space.data(), space.size(), 0);
    if (n < 0 && (wouldBlock(errno) || errno == EINTR)) return;
    if (n < 0) return endConnection(base::errnoText(errno));
    if (n == 0) {
        return endConnection(from_host_.empty() ? "closed by the host"
                                                : "closed by the host within a frame");
    }
    from_host_.added(static_cast<size_t>(n));
    while (host_.valid()) {
        const auto frame = from_host_.next();
        if (!frame) {
            counters_.receiveErrors(1);
            return endConnection(frame.error().message());
        }
        if (frame->empty()) return;
        toDevice(*frame);
    }
}

void Relay::toDevice(std::span<const uint8_t> frame) {
    ssize_t n = 0;
    do {
        n = ::write(parts_.device.get(), frame.data(), frame.size());
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return counters_.received(1, frame.size());
    // It is malformed, or the interface is down. A device that is gone is noticed by poll(2).
    counters_.receiveErrors(1);
}

}  // namespace arca::tap_forwarder
