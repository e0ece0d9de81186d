// The conversation between a command and a sandbox's monitor, on <sandbox>/attach.sock.
//
// SOCK_SEQPACKET: one packet, one message: a BodyHeader, then text. A connection makes one process,
// or releases one container. Local to one machine: host byte order.
//
//   command                              monitor
//    |-- kAttach {JSON} + {lease, stdin, stdout, stderr} ->|   terminal: {lease, slave}
//    |-- kShare NAME + {mount tree} --------------------->|   as many as there are
//    |-- kPrepare ---------------------------------------->|
//    |<- kPrepared {JSON: ports} --------------------------|   the guest answers, shares are there,
//    |-- kCopy {JSON} ------------------------------------>|   the ports are listened on
//    |<- kCopied BYTES ------------------------------------|   each tree, where nothing is shared;
//    |                                                     |   a guest of others: afterwards
//    |== CreateProcess (gRPC, to the guest itself) =====>  |
//    |-- kCommit ----------------------------------------->|   from here it is the monitor's
//    |<- kCommitted ---------------------------------------|
//
//    |-- kRelease CONTAINER ------------------------------>|   the guest has deleted it; the last
//    |<- kReleased ----------------------------------------|   one takes the VM with it
//
//    |-- kNetwork CONTAINER + {network namespace} -------->|   before the program is let run: what
//    |<- kNetworkReady NUMBER -----------------------------|   is plugged in there, the guest has
//
// At any point the monitor may answer kFailure and close. A connection that ends before kCommit
// takes back what it had made.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace arca::proto {

enum class MonitorMessage : uint32_t {
    kAttach = 64,  // JSON object: container, process (strings), terminal (boolean)
    // The tree becomes <share>/<container>/NAME for the guest; without a share it is kept for
    // kCopy.
    kShare = 65,
    kPrepare = 66,
    kPrepared = 67,  // JSON object: stdin, stdout, stderr (port numbers; absent: no stream)
    kCommit = 68,
    kCommitted = 69,
    kRelease = 70,
    kReleased = 71,
    kFailure = 72,  // text: why
    // JSON object: name (of a tree that came), to (the folder in the guest), losses (one of the
    // words below), bytes (the most).
    kCopy = 73,
    kCopied = 74,        // text: the bytes of the files, decimal
    kNetwork = 75,       // of the container that has the namespace for its own
    kNetworkReady = 76,  // how many interfaces are attached; later ones follow by themselves
};

struct MonitorPacket {
    MonitorMessage type;
    std::string_view text;  // points into the packet
};

inline std::string encodeMonitorMessage(MonitorMessage type, std::string_view text = {}) {
    const auto number = static_cast<uint32_t>(type);
    std::string packet(sizeof number, '\0');
    std::memcpy(packet.data(), &number, sizeof number);
    return packet.append(text);
}

// nullopt when `packet` is shorter than its header.
inline std::optional<MonitorPacket> decodeMonitorMessage(std::string_view packet) {
    uint32_t number = 0;
    if (packet.size() < sizeof number) return std::nullopt;
    std::memcpy(&number, packet.data(), sizeof number);
    return MonitorPacket{static_cast<MonitorMessage>(number), packet.substr(sizeof number)};
}

// Where a guest finds what the host shares with it: the virtiofs tag, its mount point, and below
// that <container>/<name>.
inline constexpr char kShareTag[] = "arca";
inline constexpr char kGuestShareFolder[] = "/run/virtiofs/arca";
// What kCopy does about what the guest's agent would not keep (archive/archive.h).
inline constexpr char kCopyExact[] = "none";  // it is ours and keeps everything
inline constexpr char kCopyOrError[] = "error";
inline constexpr char kCopyWithLosses[] = "allowed";
// The name of a single file in its folder.
inline constexpr char kCopiedFile[] = "file";
// Files of a sandbox's folder.
inline constexpr char kMonitorConfigFile[] = "config.json";
inline constexpr char kMonitorAttachSocket[] = "attach.sock";
inline constexpr char kMonitorVsockSocket[] = "v.sock";
inline constexpr char kMonitorFailureFile[] = "failure";
// The guest's address for commands where it is not that socket: vsock://CID.
inline constexpr char kMonitorAddressFile[] = "address";

}  // namespace arca::proto
