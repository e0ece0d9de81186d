// The conversation between a stand-in and its sandbox's monitor: fixed-size packets on a
// SOCK_SEQPACKET pair.
//
// The stand-in is the host process whose pid is published for a process that runs in another
// kernel. The socket is a lease both ways: when the stand-in goes, the monitor kills the process in
// the guest; when the monitor goes, the stand-in ends with 255. Local to one machine: host byte
// order.
#pragma once

#include <cstdint>

namespace arca::proto {

enum class LeaseMessage : uint32_t {
    kSignal = 1,  // stand-in -> monitor: a = signal number, to be sent to the guest's process
    kResize = 2,  // stand-in -> monitor: a = rows, b = columns, the controlling terminal's new size
    kExit = 3,    // monitor -> stand-in: a = exit code (128 + n for a signal); the stand-in leaves
                  // with it
    kLost = 4,    // monitor -> stand-in: the sandbox is gone; the stand-in leaves with 255
};

struct LeasePacket {
    LeaseMessage type;
    uint32_t a;
    uint32_t b;
};

// Exit code of a stand-in whose sandbox or monitor went away: never 0, so that nobody takes it for
// success.
inline constexpr int kLostExitCode = 255;

}  // namespace arca::proto
