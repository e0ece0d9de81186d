#include "vminitd/workers.h"

#include <pthread.h>
#include <signal.h>

#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include "base/exec_child.h"
#include "base/log.h"

namespace arca::vminitd {

namespace {

constexpr std::chrono::seconds kIdleLimit{5};

}  // namespace

Workers::~Workers() {
    stop();
    std::unique_lock<std::mutex> lock(mutex_);
    left_.wait(lock, [this] { return threads_ == 0; });
}

bool Workers::post(Task task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_ || queue_.size() >= max_queued_) return false;
    queue_.push_back(std::move(task));
    if (idle_ >= queue_.size() || threads_ == max_threads_) {
        work_.notify_one();
        return true;
    }
    try {
        const base::SignalsBlocked blocked;
        std::thread([this] { serve(); }).detach();
        ++threads_;
    } catch (const std::system_error&) {
        // Those that there are will come to it; without any it cannot be taken on.
        if (threads_ > 0) return true;
        queue_.pop_back();
        return false;
    }
    return true;
}

bool Workers::pause(std::chrono::milliseconds time) {
    std::unique_lock<std::mutex> lock(mutex_);
    return !stopped_.wait_for(lock, time, [this] { return stopping_; });
}

void Workers::stop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    work_.notify_all();
    stopped_.notify_all();
}

void Workers::serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
        ++idle_;
        const bool woken =
            work_.wait_for(lock, kIdleLimit, [this] { return !queue_.empty() || stopping_; });
        --idle_;
        if (queue_.empty()) {
            if (woken && !stopping_) continue;
            break;
        }
        const Task task = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        try {
            task();
        } catch (const std::exception& e) {
            base::log::error(std::string("a worker's task failed: ") + e.what());
        }
        lock.lock();
    }
    --threads_;
    // Under the lock: once it is given back, the pool may be gone.
    left_.notify_all();
}

}  // namespace arca::vminitd
