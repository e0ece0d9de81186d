// Loads the filter that vminitd compiled.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vmexec {

enum class SeccompListener { kNo, kYes };

// Loads `program` (an array of struct sock_filter) with SECCOMP_FILTER_FLAG_* `flags`. Needs
// no_new_privs or CAP_SYS_ADMIN. Gives the listener, or -1 when none is asked for. Source:
// seccomp(2).
base::Result<base::UniqueFd> loadSeccomp(std::string_view program, uint32_t flags,
                                         SeccompListener listener);

}  // namespace arca::vmexec
