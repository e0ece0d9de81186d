// Threads whose start can fail like any other call.
#pragma once

#include <functional>
#include <thread>

#include "base/result.h"

namespace arca::base {

// Runs `work`, which must not throw, on a thread that takes part in no signals.
Result<std::thread> startThread(std::function<void()> work);

}  // namespace arca::base
