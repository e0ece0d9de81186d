// Signals of a process that is being made.
//
// The init waits for minutes at its gate and may be pid 1 of its namespace, where the kernel drops
// signals that have the default action. So those that end a process are blocked and read from a
// signalfd beside each wait; between waits they stay pending. Used by stage 1, init and exec alike.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vmexec {

// Gives every signal its default action (a caller may have left some ignored, which survives exec)
// and blocks those that end a process.
void takeOverSignals();

// Undoes the blocking: the program starts with an empty mask.
void releaseSignals();

// Descriptor on which the blocked signals arrive.
base::Result<base::UniqueFd> openSignalFd();

// Waits until `fd` is readable or hung up. A signal that would have ended the process ends it here,
// with exit status 128 + its number. `signal_fd` as of openSignalFd().
base::Result<> waitReadableOrDie(int fd, int signal_fd);

}  // namespace arca::vmexec
