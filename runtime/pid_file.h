// The pid-file, by which engines learn what to wait for.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace arca::runtime {

// Writes the decimal pid, and nothing else, to `path` (relative to the working directory): first
// to `.NAME` beside it, then renamed, because a caller may poll for the file and reads it at once.
// What an earlier call left there is replaced. Mode 0666 before the umask. Success when `path` is
// empty: none is wanted.
base::Result<> writePidFile(const std::string& path, pid_t pid);

}  // namespace arca::runtime
