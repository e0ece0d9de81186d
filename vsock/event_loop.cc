#include "vsock/event_loop.h"

#include <algorithm>
#include <cerrno>
#include <limits>

namespace arca::vsock {

using base::failErrno;
using base::Result;
using base::UniqueFd;

Result<std::unique_ptr<EventLoop>> EventLoop::create(Now now) {
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return failErrno("epoll_create1");
    return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), now));
}

int EventLoop::waitMilliseconds(Wait wait) const {
    if (wait == Wait::kNot) return 0;
    if (timers_.empty()) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - now_()).count();
    return static_cast<int>(std::clamp<int64_t>(left, 0, std::numeric_limits<int>::max()));
}

Result<> EventLoop::turn(Wait wait) {
    const int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()),
                                   waitMilliseconds(wait));
    if (count < 0 && errno != EINTR) return failErrno("epoll_wait");
    batch_ = std::span(events_).first(static_cast<size_t>(std::max(count, 0)));
    while (!batch_.empty()) {
        const epoll_event event = batch_.front();
        batch_ = batch_.subspan(1);
        if (event.data.ptr != nullptr) {
            static_cast<EventHandler*>(event.data.ptr)->onEvents(event.events);
        }
    }
    if (!timers_.empty()) runTimers();
    return {};
}

void EventLoop::runTimers() {
    const Clock::time_point now = now_();
    // A timer that restarts itself lies behind `now`, so this ends.
    while (!timers_.empty() && timers_.begin()->first <= now) {
        Timer& timer = *timers_.begin()->second;
        timer.stop();
        // A copy, because the function may destroy the timer and itself with it.
        const std::function<void()> due = timer.due_;
        due();
    }
}

Result<> Watch::open(UniqueFd fd, uint32_t events) {
    close();
    epoll_event event{};
    event.events = events;
    event.data.ptr = &handler_;
    if (::epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
        return failErrno("epoll_ctl add");
    }
    fd_ = std::move(fd);
    return {};
}

Result<> Watch::setEvents(uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &handler_;
    if (::epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_MOD, fd_.get(), &event) != 0) {
        return failErrno("epoll_ctl modify");
    }
    return {};
}

UniqueFd Watch::release() {
    if (!fd_.valid()) return UniqueFd();
    epoll_event unused{};
    (void)::epoll_ctl(loop_.epoll_.get(), EPOLL_CTL_DEL, fd_.get(), &unused);
    for (epoll_event& event : loop_.batch_) {
        if (event.data.ptr == &handler_) event.data.ptr = nullptr;
    }
    return std::move(fd_);
}

void Timer::start(std::chrono::milliseconds after) {
    stop();
    at_ = loop_.now_() + after;
    loop_.timers_.emplace(at_, this);
    running_ = true;
}

void Timer::stop() {
    if (!running_) return;
    loop_.timers_.erase({at_, this});
    running_ = false;
}

}  // namespace arca::vsock
