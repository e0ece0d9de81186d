// Gives up everything that the running device does not need: it parses what a guest writes.
//
// Called once by main, after every path has been opened and before the first message.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/result.h"

namespace arca::vsock {

struct UserId {
    uid_t user;
    gid_t group;
};

struct Confinement {
    int working_directory;       // borrowed; where BASE_<port> are: all that stays reachable
    std::optional<UserId> user;  // become this one
};

// Enters the working directory, and then
//   as root: an empty network namespace (no abstract sockets of the host), the working directory as
//     root directory, no capabilities, and `user` if given. As another user it keeps
//     CAP_DAC_OVERRIDE, which in that root directory gives it exactly the sockets that root and
//     others put there;
//   always: no_new_privs, not dumpable, and a seccomp filter of the system calls that the loop
//     makes; any other ends the process.
// Fails when a step does, except that without the right to make a network namespace it is kept.
base::Result<> confine(const Confinement& confinement);

}  // namespace arca::vsock
