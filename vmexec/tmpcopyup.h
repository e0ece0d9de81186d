// The mount option tmpcopyup: a tmpfs that begins with what lies under its mount point.
#pragma once

#include "base/result.h"

namespace arca::vmexec {

// Copies all below directory `from_fd` (O_PATH is enough) into directory `to_fd`: directories,
// regular files, symlinks, FIFOs, sockets and device nodes, with mode, owner and modification time.
// Symlinks are copied, never followed; other mounts below are not entered.
base::Result<> copyUp(int from_fd, int to_fd);

}  // namespace arca::vmexec
