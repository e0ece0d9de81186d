// A program's one thread for everything that happens: descriptors, timers, and work that other
// threads hand in. The agent and the monitor are built around one each.
//
// What such a program knows is touched by this thread only, so nothing else needs a lock. Other
// threads call post() and nothing more. Handlers must not block: what has to be tried again is
// tried again by a timer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

class EventLoop {
 public:
    using Clock = std::chrono::steady_clock;
    using Task = std::function<void()>;
    using ReadyHandler = std::function<void(uint32_t events)>;  // EPOLL* bits

    static Result<std::unique_ptr<EventLoop>> make();
    ~EventLoop();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    // Serves until stop(). Runs on the thread that owns the program's state. May be called again.
    void run();
    // From the loop's thread: run() returns after the current handler.
    void stop() { stopped_ = true; }
    // Runs `task` on the loop's thread, in the order of the calls. From any thread.
    void post(Task task);

 private:
    friend class Watch;
    friend class Timer;

    EventLoop(UniqueFd epoll, UniqueFd wake);
    Result<uint64_t> add(int fd, uint32_t events, ReadyHandler handler);
    void change(uint64_t id, uint32_t events);
    void remove(uint64_t id);
    std::pair<Clock::time_point, uint64_t> addTimer(std::chrono::milliseconds delay, Task task);
    void removeTimer(const std::pair<Clock::time_point, uint64_t>& key);
    int runDueTimers();  // gives the milliseconds until the next one, -1 without one
    void runPosted();

    struct Entry {
        int fd;
        std::shared_ptr<ReadyHandler> handler;
    };

    UniqueFd epoll_;
    UniqueFd wake_;  // eventfd
    bool stopped_ = false;
    uint64_t next_id_ = 1;  // 0 is the eventfd
    std::unordered_map<uint64_t, Entry> entries_;
    std::map<std::pair<Clock::time_point, uint64_t>, Task> timers_;
    std::mutex mutex_;
    std::vector<Task> posted_;  // guarded by mutex_
};

// One watched descriptor; the watch ends with the object. The descriptor is borrowed and must
// outlive it. A handler may destroy its own Watch.
class Watch {
 public:
    Watch() = default;
    Watch(Watch&& other) noexcept
        : loop_(std::exchange(other.loop_, nullptr)), id_(std::exchange(other.id_, 0)) {}
    Watch& operator=(Watch&& other) noexcept;
    ~Watch() { reset(); }

    static Result<Watch> make(EventLoop& loop, int fd, uint32_t events,
                              EventLoop::ReadyHandler handler);
    void change(uint32_t events);
    void reset() noexcept;
    [[nodiscard]] bool active() const { return loop_ != nullptr; }

 private:
    EventLoop* loop_ = nullptr;
    uint64_t id_ = 0;
};

// Runs a task once after a delay, unless destroyed before.
class Timer {
 public:
    Timer() = default;
    Timer(EventLoop& loop, std::chrono::milliseconds delay, EventLoop::Task task);
    Timer(Timer&& other) noexcept : loop_(std::exchange(other.loop_, nullptr)), key_(other.key_) {}
    Timer& operator=(Timer&& other) noexcept;
    ~Timer() { reset(); }
    void reset() noexcept;

 private:
    EventLoop* loop_ = nullptr;
    std::pair<EventLoop::Clock::time_point, uint64_t> key_;
};

// Calls `attempt` now and then again after growing pauses (1, 2, 4 ... 100 ms) until it gives true
// or `limit` has passed; then calls `done` with whether it ever did. Owns itself.
void retryUntil(EventLoop& loop, std::chrono::milliseconds limit, std::function<bool()> attempt,
                std::function<void(bool)> done);

}  // namespace arca::base
