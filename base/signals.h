// Signal names and numbers as `kill` takes and prints them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace arca::base {

// The number of the signal that `text` names: a decimal number 1..64 (0, the probe, too), or a name
// with or without "SIG" in any case, or RTMIN, RTMIN+n, RTMAX-n, RTMAX inside the range. RTMIN is
// 34 as in glibc, whatever libc the container uses. Fails with kInvalidArgument and `unknown signal
// "X"`.
Result<int> parseSignal(std::string_view text);

// "SIGTERM", "SIGRTMIN+3", or the number when it has no name.
std::string signalName(int signal_number);

}  // namespace arca::base
