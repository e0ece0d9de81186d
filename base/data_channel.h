// The stream on which the bytes of a Copy travel, for a worker thread that reads or writes it.
//
// Waits end: when the peer is gone, when nothing moved for kStallLimit, and when the call was
// cancelled.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// Says "stop" from any thread to one that is working.
class StopSignal {
 public:
    StopSignal();
    void set();
    [[nodiscard]] bool isSet() const { return set_.load(std::memory_order_acquire); }
    // Readable once it is set. Invalid when the kernel had no eventfd to give: then waits end late.
    [[nodiscard]] int fd() const { return event_.get(); }

 private:
    std::atomic<bool> set_{false};
    UniqueFd event_;
};

class DataChannel {
 public:
    static constexpr std::chrono::milliseconds kStallLimit{120'000};

    // `stop` must outlive the channel.
    DataChannel(UniqueFd socket, const StopSignal& stop,
                std::chrono::milliseconds stall_limit = kStallLimit);

    // Up to `size` bytes; 0 at the end. kUnavailable when the peer broke it off, kDeadlineExceeded
    // when it stalled, kUnavailable "cancelled" after the stop.
    Result<size_t> read(char* to, size_t size);
    Result<> write(std::string_view data);
    // No more will be written: the peer sees the end.
    void finishWriting();

 private:
    Result<> wait(short events);

    UniqueFd socket_;
    const StopSignal& stop_;
    std::chrono::milliseconds stall_limit_;
};

}  // namespace arca::base
