// A program's file for execveat(2), such that the process which runs it cannot write to it.
//
// A container that gets hold of /proc/PID/exe of a process that is still ours could otherwise
// replace the program on the host (CVE-2019-5736).
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// `file`: the program, open as O_PATH (borrowed); `path` is its name for messages and for reading
// it. Gives a descriptor for execveat(fd, "", ..., AT_EMPTY_PATH): the file through a detached,
// read-only mount of its own, or a sealed copy in memory where that may not be made. May be kept
// and used many times.
Result<UniqueFd> guardedProgram(const UniqueFd& file, const std::string& path);

}  // namespace arca::base
