// Says "stop" from any thread to one that is working or waiting.
#pragma once

#include <atomic>

#include "base/unique_fd.h"

namespace arca::base {

class StopSignal {
 public:
    StopSignal();
    // True for the call that set it.
    bool set();
    [[nodiscard]] bool isSet() const { return set_.load(std::memory_order_acquire); }
    // Readable once it is set. Invalid when the kernel had no eventfd to give: then waits end late.
    [[nodiscard]] int fd() const { return event_.get(); }

 private:
    std::atomic<bool> set_{false};
    UniqueFd event_;
};

}  // namespace arca::base
