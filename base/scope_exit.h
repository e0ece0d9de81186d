// Runs a function when the scope ends, unless released: for the one-off clean-up that no type owns.
#pragma once

#include <utility>

namespace arca::base {

template <typename F>
class ScopeExit {
 public:
    explicit ScopeExit(F function) : function_(std::move(function)) {}
    ScopeExit(const ScopeExit&) = delete;
    ScopeExit& operator=(const ScopeExit&) = delete;
    ~ScopeExit() {
        if (armed_) function_();
    }
    // The work succeeded: the clean-up does not run.
    void release() noexcept { armed_ = false; }

 private:
    F function_;
    bool armed_ = true;
};

}  // namespace arca::base
