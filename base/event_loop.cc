#include "base/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace arca::base {

namespace {

constexpr uint64_t kWakeId = 0;

}  // namespace

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake)
    : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

EventLoop::~EventLoop() = default;

Result<std::unique_ptr<EventLoop>> EventLoop::make() {
    UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll.valid()) return failErrno("epoll_create1");
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake.valid()) return failErrno("eventfd");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kWakeId;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) {
        return failErrno("epoll_ctl");
    }
    return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

void EventLoop::post(Task task) {
    bool first = false;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        first = posted_.empty();
        posted_.push_back(std::move(task));
    }
    // Only the first task of a batch has to wake the loop.
    if (!first) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::runPosted() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
    std::vector<Task> tasks;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        tasks.swap(posted_);
    }
    for (Task& task : tasks) task();
}

int EventLoop::runDueTimers() {
    while (!timers_.empty()) {
        const auto first = timers_.begin();
        const auto left = first->first.first - Clock::now();
        if (left > Clock::duration::zero()) {
            const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
            return static_cast<int>(std::min<int64_t>(ms, 3'600'000));
        }
        const Task task = std::move(first->second);
        timers_.erase(first);
        task();
        if (stopped_) return 0;
    }
    return -1;
}

void EventLoop::run() {
    std::array<epoll_event, 64> events{};
    while (!stopped_) {
        const int timeout_ms = runDueTimers();
        if (stopped_) break;
        const int n =
            ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
        for (int i = 0; i < n && !stopped_; ++i) {
            const epoll_event& event = events[static_cast<size_t>(i)];
            if (event.data.u64 == kWakeId) {
                runPosted();
                continue;
            }
            // Looked up by number: an earlier handler of this round may have ended the watch.
            const auto it = entries_.find(event.data.u64);
            if (it == entries_.end()) continue;
            const std::shared_ptr<ReadyHandler> handler = it->second.handler;
            (*handler)(event.events);
        }
    }
    stopped_ = false;
}

Result<uint64_t> EventLoop::add(int fd, uint32_t events, ReadyHandler handler) {
    const uint64_t id = next_id_++;
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return failErrno("epoll_ctl");
    entries_.emplace(id, Entry{fd, std::make_shared<ReadyHandler>(std::move(handler))});
    return id;
}

void EventLoop::change(uint64_t id, uint32_t events) {
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, it->second.fd, &event);
}

void EventLoop::remove(uint64_t id) {
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr);
    entries_.erase(it);
}

std::pair<EventLoop::Clock::time_point, uint64_t> EventLoop::addTimer(
    std::chrono::milliseconds delay, Task task) {
    const auto key = std::make_pair(Clock::now() + delay, next_id_++);
    timers_.emplace(key, std::move(task));
    return key;
}

void EventLoop::removeTimer(const std::pair<Clock::time_point, uint64_t>& key) {
    timers_.erase(key);
}

Watch& Watch::operator=(Watch&& other) noexcept {
    if (this != &other) {
        reset();
        loop_ = std::exchange(other.loop_, nullptr);
        id_ = std::exchange(other.id_, 0);
    }
    return *this;
}

Result<Watch> Watch::make(EventLoop& loop, int fd, uint32_t events,
                          EventLoop::ReadyHandler handler) {
    ARCA_TRY(const uint64_t id, loop.add(fd, events, std::move(handler)));
    Watch watch;
    watch.loop_ = &loop;
    watch.id_ = id;
    return watch;
}

void Watch::change(uint32_t events) {
    if (loop_ != nullptr) loop_->change(id_, events);
}

void Watch::reset() noexcept {
    if (loop_ != nullptr) std::exchange(loop_, nullptr)->remove(id_);
}

Timer::Timer(EventLoop& loop, std::chrono::milliseconds delay, EventLoop::Task task)
    : loop_(&loop), key_(loop.addTimer(delay, std::move(task))) {}

Timer& Timer::operator=(Timer&& other) noexcept {
    if (this != &other) {
        reset();
        loop_ = std::exchange(other.loop_, nullptr);
        key_ = other.key_;
    }
    return *this;
}

void Timer::reset() noexcept {
    if (loop_ != nullptr) std::exchange(loop_, nullptr)->removeTimer(key_);
}

namespace {

struct Retry : std::enable_shared_from_this<Retry> {
    EventLoop* loop = nullptr;
    EventLoop::Clock::time_point deadline;
    std::chrono::milliseconds pause{1};
    std::function<bool()> attempt;
    std::function<void(bool)> done;
    Timer timer;

    void step() {
        if (attempt()) return done(true);
        if (EventLoop::Clock::now() >= deadline) return done(false);
        timer = Timer(*loop, pause, [self = shared_from_this()] {
            // The timer that ran is gone; let go of it before a new one is made.
            self->timer = Timer();
            self->step();
        });
        pause = std::min(pause * 2, std::chrono::milliseconds(100));
    }
};

}  // namespace

void retryUntil(EventLoop& loop, std::chrono::milliseconds limit, std::function<bool()> attempt,
                std::function<void(bool)> done) {
    auto retry = std::make_shared<Retry>();
    retry->loop = &loop;
    retry->deadline = EventLoop::Clock::now() + limit;
    retry->attempt = std::move(attempt);
    retry->done = std::move(done);
    retry->step();
}

}  // namespace arca::base
