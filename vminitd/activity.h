// Whether anybody needs the agent: calls under way, and when something last happened.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace arca::vminitd {

// Any thread.
class Activity {
 public:
    // A call came in, on the thread that saw it: before it is handed to the loop.
    void begin() {
        in_flight_.fetch_add(1, std::memory_order_relaxed);
        touch();
    }
    void end() {
        touch();
        in_flight_.fetch_sub(1, std::memory_order_release);
    }
    void touch() { last_.store(now(), std::memory_order_relaxed); }

    [[nodiscard]] bool busy() const { return in_flight_.load(std::memory_order_acquire) != 0; }
    [[nodiscard]] std::chrono::milliseconds idleFor() const {
        return std::chrono::milliseconds(now() - last_.load(std::memory_order_relaxed));
    }

 private:
    static int64_t now() {
        return std::chrono::duration_cast<std::chrono::milliseconds>(
                   std::chrono::steady_clock::now().time_since_epoch())
            .count();
    }
    std::atomic<int> in_flight_{0};
    std::atomic<int64_t> last_{now()};
};

}  // namespace arca::vminitd
