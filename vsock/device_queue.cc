#include "vsock/device_queue.h"

#include <fcntl.h>
#include <unistd.h>

#include <limits>
#include <string>
#include <utility>

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

Result<> refuseWhileRunning(const Virtqueue& ring, std::string_view what) {
    if (!ring.running()) return {};
    return fail(Code::kFailedPrecondition, std::string(what) + ": the queue is running");
}

// Adds one to an eventfd. A full counter is as good as another signal, and a VMM that has closed
// its end is noticed on its socket.
void signalEvent(const UniqueFd& fd) {
    if (!fd.valid()) return;
    constexpr uint64_t kOne = 1;
    [[maybe_unused]] const ssize_t n = ::write(fd.get(), &kOne, sizeof kOne);
}

// QEMU's eventfds are non-blocking already; other VMMs' need not be.
void neverBlocks(const UniqueFd& fd) {
    if (!fd.valid()) return;
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (flags >= 0 && (static_cast<unsigned>(flags) & O_NONBLOCK) == 0) {
        (void)::fcntl(fd.get(), F_SETFL, static_cast<unsigned>(flags) | O_NONBLOCK);
    }
}

}  // namespace

Result<> DeviceQueue::setSize(uint32_t size) {
    ARCA_CHECK(refuseWhileRunning(ring_, "set size"));
    size_ = size;
    return {};
}

Result<> DeviceQueue::setAddresses(const RingAddresses& addresses) {
    ARCA_CHECK(refuseWhileRunning(ring_, "set addresses"));
    addresses_ = addresses;
    return {};
}

Result<> DeviceQueue::setBase(uint32_t next_available) {
    ARCA_CHECK(refuseWhileRunning(ring_, "set base"));
    if (next_available > std::numeric_limits<uint16_t>::max()) {
        return fail(Code::kInvalidArgument, "set base: " + std::to_string(next_available));
    }
    base_ = static_cast<uint16_t>(next_available);
    return {};
}

Result<> DeviceQueue::start(const GuestMemory& memory, UniqueFd kick, EventIndex event_index) {
    const bool was_running = ring_.running();
    ARCA_CHECK(kick_.open(std::move(kick), EPOLLIN | EPOLLET));
    if (was_running) return {};
    ARCA_CHECK(ring_.start(memory, size_, addresses_, base_, event_index));
    resumed_ = base_ == stopped_at_;
    return {};
}

uint16_t DeviceQueue::stop() {
    kick_.close();
    if (ring_.running()) {
        ring_.stop();
        base_ = stopped_at_ = ring_.nextAvailable();
    }
    return base_;
}

void DeviceQueue::setInterrupt(UniqueFd fd) {
    neverBlocks(fd);
    interrupt_ = std::move(fd);
}

void DeviceQueue::setError(UniqueFd fd) {
    neverBlocks(fd);
    error_ = std::move(fd);
}

Result<> DeviceQueue::relocate(const GuestMemory& memory) {
    if (!ring_.running()) return {};
    return ring_.relocate(memory);
}

void DeviceQueue::publish() {
    ring_.publish();
    if (ring_.wantsInterrupt()) signalEvent(interrupt_);
}

void DeviceQueue::signalError() {
    signalEvent(error_);
}

void DeviceQueue::clear() {
    (void)stop();
    interrupt_.reset();
    error_.reset();
    addresses_ = {};
    size_ = 0;
    base_ = stopped_at_ = 0;
    resumed_ = enabled_ = false;
}

}  // namespace arca::vsock
