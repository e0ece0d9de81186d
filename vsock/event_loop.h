// epoll with timers for a program of one thread.
//
// Handlers may remove themselves and each other while events are being handed out: what is removed
// is not called any more.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vsock {

class EventHandler {
 public:
    virtual ~EventHandler() = default;
    // `events` as epoll_wait(2) gives them.
    virtual void onEvents(uint32_t events) = 0;
};

class Timer;

class EventLoop {
 public:
    using Clock = std::chrono::steady_clock;
    using Now = Clock::time_point (*)();

    // `now`: the clock, for tests that do not want to wait.
    static base::Result<std::unique_ptr<EventLoop>> create(Now now = &Clock::now);

    enum class Wait { kForEvents, kNot };
    // Hands out what is ready, waiting for it if asked to and nothing is, then runs the timers that
    // are due. Fails only when epoll_wait(2) does.
    base::Result<> turn(Wait wait);

 private:
    friend class Timer;
    friend class Watch;

    EventLoop(base::UniqueFd epoll, Now now) : epoll_(std::move(epoll)), now_(now) {}
    [[nodiscard]] int waitMilliseconds(Wait wait) const;
    void runTimers();

    base::UniqueFd epoll_;
    Now now_;
    std::array<epoll_event, 64> events_{};
    std::span<epoll_event> batch_;  // what is still to be handed out
    std::set<std::pair<Clock::time_point, Timer*>> timers_;
};

// A descriptor and its place in a loop: leaves the loop before it is closed. One handler serves one
// watch.
class Watch {
 public:
    Watch(EventLoop& loop, EventHandler& handler) : loop_(loop), handler_(handler) {}
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;
    ~Watch() { close(); }

    // Closes what was held and watches `fd` for `events` as for epoll_ctl(2), EPOLLET included when
    // wanted. Fails, with `fd` closed, when epoll cannot watch it.
    base::Result<> open(base::UniqueFd fd, uint32_t events);
    // Watches the same descriptor for other events.
    base::Result<> setEvents(uint32_t events);
    void close() { (void)release(); }
    // Leaves the loop and gives the descriptor up.
    base::UniqueFd release();

    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] bool valid() const { return fd_.valid(); }

 private:
    EventLoop& loop_;
    EventHandler& handler_;
    base::UniqueFd fd_;
};

// Calls a function once when its time has come; stops when destroyed.
class Timer {
 public:
    Timer(EventLoop& loop, std::function<void()> due) : loop_(loop), due_(std::move(due)) {}
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    ~Timer() { stop(); }

    // Starts or restarts.
    void start(std::chrono::milliseconds after);
    void stop();
    [[nodiscard]] bool running() const { return running_; }

 private:
    friend class EventLoop;

    EventLoop& loop_;
    std::function<void()> due_;
    EventLoop::Clock::time_point at_;
    bool running_ = false;
};

}  // namespace arca::vsock
