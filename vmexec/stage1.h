// Stage 1: the process that the agent (or the CLI) forked. It receives the plan, joins and makes
// namespaces, clones the process proper as its sibling, reports the pid and leaves.
#pragma once

#include "base/unique_fd.h"

namespace arca::vmexec {

// Runs stage 1 over `sync_socket` and, in the cloned process, all the rest.
[[noreturn]] void stage1Main(base::UniqueFd sync_socket);

}  // namespace arca::vmexec
