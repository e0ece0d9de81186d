// Descriptors that a caller asked for: the terminal's master and a pidfd, each handed over on a
// unix socket that the caller listens on.
#pragma once

#include <string>

#include "base/process.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

// Where to hand what over, connected before anything is made, so that a wrong path costs nothing.
struct HandOver {
    base::UniqueFd console;
    base::UniqueFd pidfd;
};

// Connects to the sockets at these paths; an empty path is not wanted.
base::Result<HandOver> connectHandOver(const std::string& console_path,
                                       const std::string& pidfd_path);

// Sends the terminal's master, if it is wanted. One message, one descriptor; nobody answers.
base::Result<> sendTerminal(const HandOver& sockets, int terminal_fd);

// Sends a pidfd of the process, if it is wanted. `payload` says what it is to who receives it.
base::Result<> sendPidfd(const HandOver& sockets, const base::ProcessIdentity& process,
                         const std::string& payload);

}  // namespace arca::runtime
