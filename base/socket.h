// Unix sockets: names longer than sun_path, whole messages with descriptors, peer checks.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

// A connected pair; both ends O_CLOEXEC. `type` is SOCK_STREAM or SOCK_SEQPACKET.
struct SocketPair {
    UniqueFd first;
    UniqueFd second;
};
Result<SocketPair> socketPair(int type);

// Connects to / listens on the socket file `name` in directory `dir_fd`, through /proc/self/fd, so
// that the 108-byte limit of sun_path never depends on how deep the directory lies. listenUnix()
// removes a stale file first and gives the new one mode 0600.
Result<UniqueFd> connectUnix(int dir_fd, const std::string& name, int type);
Result<UniqueFd> listenUnix(int dir_fd, const std::string& name, int type);

// Connects to a path as given by a caller (console sockets): long paths go through their directory.
Result<UniqueFd> connectUnixPath(const std::string& path, int type);

// Whether somebody listens on the socket file at `path`, of whatever type: found out by connecting.
// False also when there is none.
Result<bool> isUnixSocketListened(const std::string& path);

struct Message {
    std::string data;
    std::vector<UniqueFd> fds;
};

// Largest payload of one message, in bytes, and most descriptors that go with it.
inline constexpr size_t kMaxMessageBytes = 65536;
inline constexpr size_t kMaxMessageFds = 16;

// Sends `data` and descriptors (borrowed) as one message. On a SOCK_SEQPACKET socket it arrives
// whole or not at all. Never raises SIGPIPE; a vanished peer is kUnavailable.
Result<> sendMessage(int socket_fd, std::string_view data, const std::vector<int>& fds = {});

// Receives one message; descriptors come with O_CLOEXEC. nullopt = the peer closed. With `timeout`:
// fails with kDeadlineExceeded when nothing came by then. A truncated message is kInternal, and its
// descriptors are closed.
Result<std::optional<Message>> receiveMessage(
    int socket_fd, std::optional<std::chrono::milliseconds> timeout = std::nullopt);

// Waits until `fd` is readable (or hung up). False = the time ran out.
Result<bool> waitReadable(int fd, std::optional<std::chrono::milliseconds> timeout);

struct PeerCredentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};
// Who connected, as the kernel saw it at connect time (SO_PEERCRED).
Result<PeerCredentials> peerCredentials(int socket_fd);

}  // namespace arca::base
