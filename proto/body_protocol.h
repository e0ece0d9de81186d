// The conversations around a process that is being made: vmexec <-> vminitd over the sync socket,
// and the CLI
// <-> vminitd over attach.sock. Both are SOCK_SEQPACKET: one packet, one message. Local to one
// machine, so numbers are in host order. Not part of the guest's wire protocol.
//
//   CLI                        vminitd                       vmexec (stage 1 and init share one
//   socket)
//    |-- attach: kAttach + {sync fd, pidfd of stage 1} ->|
//    |== CreateProcess (gRPC) =========================> |-- kPlan + {memfd} ---------------> stage
//    1 |                                                   |<- kPid value=pid --------------------
//    stage 1, which then |                                                   |   (into its cgroup,
//    recorded)         exits 0 |                                                   |-- kGo
//    ------------------------------> init |                                                   |<-
//    kMounted -------------------------- init: namespaces and mounts done
//    |<- kRunHooks value=pid ---------------------------|   (only with prestart/createRuntime
//    hooks)
//    |-- kHooksDone (text = error, empty = success) ---> |
//    |                                                   |-- kHooksRan ------------------------>
//    init |                                                   |<- kReady [+ console master fd]
//    ------ init: createContainer hooks, pivot | |   (recorded on disk)                  and all
//    the rest done; at the gate
//    |<- kCreated value=pid [+ console master fd] -------|-- kCommit -------------------------->
//    init
//    |<= CreateProcess OK ============================== |                 init closes the sync
//    socket, waits at the gate
//    |== StartProcess =================================> |-- connects to the gate, kStart ----->
//    init |                                                   |<- end of file: exec happened;
//    kFailure + text: it did not
//
// At any point init or stage 1 may send kFailure (value = errno or 0, text = "operation object:
// reason") and exit 1. An end of file on the sync socket before kCommit means that vminitd gave up
// or died: vmexec leaves with 1. The gate is a listening SOCK_SEQPACKET socket that vminitd makes
// and binds to `gate.sock` in the process's folder and passes with kPlan; it is how a waiting
// process needs no agent in between. A connection that closes without kStart is ignored. Each
// accepted kStart ends in exec or exit.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace arca::proto {

enum class BodyMessage : uint32_t {
    kPlan = 1,      // vminitd -> stage 1: text empty, fds {plan memfd, gate listener}
    kPid = 2,       // stage 1 -> vminitd: value = pid, fds {its pidfd}: the number alone may be
                    // another's by the time it is read
    kGo = 3,        // vminitd -> init
    kMounted = 4,   // init -> vminitd
    kHooksRan = 5,  // vminitd -> init
    kReady = 6,     // init -> vminitd
    kCommit = 7,    // vminitd -> init
    kStart = 8,     // vminitd -> init, over the gate; value = 1: terminal size follows in text as
                    // "ROWS COLUMNS"
    kFailure = 9,   // init or stage 1 -> vminitd
    kWarning = 10,  // init or stage 1 -> vminitd: what the spec calls a warning; text
    kListener = 11,        // init -> vminitd, over the gate: fds {seccomp listener}
    kListenerPassed = 12,  // vminitd -> init, over the gate: somebody will answer; exec may follow
    kAttach = 32,   // CLI -> vminitd: text "CONTAINER_ID\0PROCESS_ID\0", fds {sync socket, pidfd of
                    // stage 1}
    kRunHooks = 33,     // vminitd -> CLI
    kHooksDone = 34,    // CLI -> vminitd
    kCreated = 35,      // vminitd -> CLI
    kBodyWarning = 36,  // vminitd -> CLI: a kWarning passed on
};

struct BodyHeader {
    uint32_t type = 0;
    int32_t value = 0;
};

// One packet: header, then text (no terminator).
inline std::string encodeBodyMessage(BodyMessage type, int32_t value = 0,
                                     std::string_view text = {}) {
    const BodyHeader header{static_cast<uint32_t>(type), value};
    std::string packet(sizeof header, '\0');
    std::memcpy(packet.data(), &header, sizeof header);
    return packet.append(text);
}

struct BodyPacket {
    BodyMessage type;
    int32_t value;
    std::string_view text;  // points into the packet
};

// nullopt when `packet` is shorter than a header.
inline std::optional<BodyPacket> decodeBodyMessage(std::string_view packet) {
    BodyHeader header;
    if (packet.size() < sizeof header) return std::nullopt;
    std::memcpy(&header, packet.data(), sizeof header);
    return BodyPacket{static_cast<BodyMessage>(header.type), header.value,
                      packet.substr(sizeof header)};
}

}  // namespace arca::proto
