// Threads for short works that wait for others: each work has its own, and there are at most so
// many.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <list>
#include <thread>

namespace arca::base {

class Crew {
 public:
    explicit Crew(size_t most) : most_(most) {}
    // Waits for all works: have them end before.
    ~Crew();
    Crew(const Crew&) = delete;
    Crew& operator=(const Crew&) = delete;

    // Begins the work, which must not throw. False when there are as many already, or the system
    // has no thread to give: nothing is done then. One thread only.
    bool start(std::function<void()> work);

 private:
    struct Hand {
        std::thread thread;
        std::atomic<bool> done{false};
    };
    void joinDone();

    const size_t most_;
    std::list<Hand> hands_;
};

}  // namespace arca::base
