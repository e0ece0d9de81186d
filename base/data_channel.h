// The stream on which the bytes of a Copy travel, for a worker thread that reads or writes it.
//
// Waits end: when the peer is gone, when nothing moved for kStallLimit, and when the call was
// cancelled.
#pragma once

#include <chrono>
#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "base/stop_signal.h"
#include "base/unique_fd.h"

namespace arca::base {

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
