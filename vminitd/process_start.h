// Opens the gate of a created process and waits until its program runs.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

struct TerminalSize {
    uint16_t rows = 0;
    uint16_t columns = 0;
};

enum class GateState {
    kWaiting,  // the process waits to be started
    kOpened,   // nobody listens any more: its program has been executed, or it has ended
};
// Looks without starting anything: a connection that closes without a word is ignored.
GateState probeGate(int dir_fd, const std::string& name);

struct StartRequest {
    int folder_fd = -1;  // borrowed while startAtGate() runs
    std::string gate;    // name in it
    std::optional<TerminalSize> size;
    // Gets the descriptor of a seccomp filter with SCMP_ACT_NOTIFY, to pass it on. The program is
    // not executed before this has succeeded.
    std::function<base::Result<>(base::UniqueFd listener)> seccomp_listener;
    // Called once the program has been executed, or with the process's own words why not. The
    // error of seccomp_listener comes here too.
    std::function<void(base::Result<>)> done;
};

// Sends kStart to the gate. kFailedPrecondition when nobody waits there.
void startAtGate(EventLoop& loop, StartRequest request);

}  // namespace arca::vminitd
