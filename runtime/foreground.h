// The wait of `run` and `exec` in the foreground: for one process, as its parent.
#pragma once

#include <functional>

#include "base/result.h"
#include "runtime/console.h"
#include "runtime/drivers/driver.h"
#include "runtime/notify.h"
#include "runtime/signals.h"

namespace arca::runtime {

struct ForegroundJob {
    base::ProcessIdentity process;  // a child of ours
    // The master of its terminal, or invalid: then it has our stdio itself and nothing is moved.
    base::UniqueFd terminal;
    // Orphans of the container become our children and are reaped.
    bool adopt_orphans = false;
    // Readiness to pass on meanwhile; borrowed, may be null.
    NotifyProxy* notify = nullptr;
    // Called once when the process turns out to take its time.
    std::function<void()> on_long_wait;
};

// Makes the container's terminal as large as ours. Before the program is started, so that it finds
// its size right. Does nothing without a terminal.
base::Result<> prepareTerminal(const ForegroundJob& job);

// Waits for the end of the process, which it reaps; passes signals and terminal bytes on
// meanwhile. Gives the exit code: its own, or 128 + the signal that ended it.
base::Result<int> waitInForeground(const ForegroundJob& job, const SignalInbox& signals);

}  // namespace arca::runtime
