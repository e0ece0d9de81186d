// Signals as descriptors: while a container is being made, and while a foreground call waits.
//
// Once made, all signals that this program may get are blocked and read from signalfds, so that
// nothing is left half-made by a default action, and nothing runs asynchronously. Children get a
// clean mask from who forks them.
#pragma once

#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::runtime {

class SignalInbox {
 public:
    // Blocks every signal but those that report faults of our own code.
    static base::Result<SignalInbox> open();

    // Readable when somebody wants this call to end: SIGTERM, SIGINT, SIGHUP, SIGQUIT.
    [[nodiscard]] int interruptFd() const { return interrupts_.get(); }
    // An error that names the signal, when one is there.
    [[nodiscard]] base::Result<> checkInterrupt() const;

    // Readable when any blocked signal is pending.
    [[nodiscard]] int fd() const { return all_.get(); }
    // The next signal, or nullopt.
    [[nodiscard]] std::optional<int> next() const;

 private:
    SignalInbox(base::UniqueFd interrupts, base::UniqueFd all)
        : interrupts_(std::move(interrupts)), all_(std::move(all)) {}
    base::UniqueFd interrupts_;
    base::UniqueFd all_;
};

// True for signals that a foreground call passes on to the process it waits for: all but SIGCHLD,
// SIGURG (noise of Go programs), SIGWINCH (becomes a resize) and SIGPIPE (of our own output).
bool isForwarded(int signal_number);

// Start-up: descriptors 0 to 2 exist (a missing one becomes /dev/null, so that no file of ours
// takes its number) and the end of a child is reported even when our caller ignores SIGCHLD.
void prepareProcess();

}  // namespace arca::runtime
