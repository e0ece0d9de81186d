// Loads the filter that vminitd compiled.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/result.h"

namespace arca::vmexec {

// Loads `program` (an array of struct sock_filter) with SECCOMP_FILTER_FLAG_* `flags`. Needs
// no_new_privs or CAP_SYS_ADMIN. Source: seccomp(2).
base::Result<> loadSeccomp(std::string_view program, uint32_t flags);

// The same for a filter with SECCOMP_RET_USER_NOTIF. `hand_over` gets the listener (borrowed) in a
// second thread, which the filter does not confine, and may take its time; the calling thread makes
// no system call before it has returned. That thread lives until the process executes something or
// exits; if the hand-over fails it has to end the process itself.
base::Result<> loadSeccompWithListener(std::string_view program, uint32_t flags,
                                       const std::function<void(int listener)>& hand_over);

}  // namespace arca::vmexec
