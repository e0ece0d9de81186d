// Threads for work that can block: mounts, copies, files on a file system whose device is gone.
//
// Neither gRPC's threads nor the loop may wait for such things. A pool has at most so many threads;
// each is made when there is work and nobody idle, and leaves after some idle seconds, so that an
// agent with nothing to do holds no stack for them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>

namespace arca::vminitd {

// Any thread.
class Workers {
 public:
    using Task = std::function<void()>;

    Workers(size_t max_threads, size_t max_queued)
        : max_threads_(max_threads), max_queued_(max_queued) {}
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;
    // stop(), then waits for what has been taken on: each task is run, and learns from pause() that
    // it should come to an end.
    ~Workers();

    // Runs `task` on one of the threads. False when too much is waiting, or after stop(): it will
    // not run.
    [[nodiscard]] bool post(Task task);

    // For a task that tries again: waits so long. False at once when the pool is being stopped.
    [[nodiscard]] bool pause(std::chrono::milliseconds time);
    void stop();

 private:
    void serve();

    const size_t max_threads_;
    const size_t max_queued_;
    std::mutex mutex_;
    std::condition_variable work_;     // something was queued, or stop()
    std::condition_variable stopped_;  // stop()
    std::condition_variable left_;     // a thread has left
    std::deque<Task> queue_;           // all below: guarded by mutex_
    size_t threads_ = 0;
    size_t idle_ = 0;
    bool stopping_ = false;
};

}  // namespace arca::vminitd
