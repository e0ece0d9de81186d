// The host's side of the device as Unix sockets: BASE for connections to the guest, BASE_<port> for
// those of the guest.
//
// The directory is worked in by descriptor and relative names, so that neither its depth nor a
// rename matters. Peers are programs of the same user (SO_PEERCRED) or root's.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vsock/device.h"
#include "vsock/event_loop.h"

namespace arca::vsock {

// Who may be at the other end of a socket.
class PeerPolicy {
 public:
    // Root, and the users in `users`.
    explicit PeerPolicy(std::vector<uid_t> users) : users_(std::move(users)) {}
    // Fails with kPermissionDenied when the peer of `socket_fd` is somebody else.
    [[nodiscard]] base::Result<> check(int socket_fd) const;
    [[nodiscard]] bool allows(uid_t user) const;

 private:
    std::vector<uid_t> users_;
};

// A path to a socket, taken apart: its directory, open (O_PATH), and its name in it.
struct SocketPlace {
    base::UniqueFd directory;
    std::string name;
};
// Opens the directory of `path`, making it (0700) when it is missing. Fails with kPermissionDenied
// when others than its owner can get in, or its owner is none of `owners`.
base::Result<SocketPlace> openSocketPlace(const std::string& path, const PeerPolicy& owners);

// Connects to "<name>_<port>" in the working directory.
class UnixDialer final : public HostDialer {
 public:
    UnixDialer(std::string name, const PeerPolicy& peers) : name_(std::move(name)), peers_(peers) {}
    base::Result<base::UniqueFd> dial(uint32_t port) override;

 private:
    std::string name_;
    const PeerPolicy& peers_;
};

// Accepts clients on BASE, reads their "CONNECT <port>" and gives them to the device. A client that
// says something else, or nothing for too long, is closed.
class HybridListener final : public EventHandler {
 public:
    static constexpr std::chrono::milliseconds kLineTimeout{10'000};
    static constexpr std::chrono::milliseconds kRetryAccept{100};

    // `max_clients`: of those whose line is not complete yet; more are closed at once.
    HybridListener(EventLoop& loop, Device& device, const PeerPolicy& peers, size_t max_clients);
    ~HybridListener() override;

    // Takes the listening socket, which must be non-blocking.
    base::Result<> start(base::UniqueFd listener);
    // No more clients; those with an unfinished line are closed.
    void stop();

    void onEvents(uint32_t events) override;
    [[nodiscard]] size_t clientCount() const { return clients_.size(); }

 private:
    class Client;
    void add(base::UniqueFd socket);
    void onLine(Client& client, uint32_t port);
    void drop(Client& client);

    EventLoop& loop_;
    Device& device_;
    const PeerPolicy& peers_;
    size_t max_clients_;
    Watch listener_;
    Timer retry_;
    std::unordered_map<const Client*, std::unique_ptr<Client>> clients_;
};

}  // namespace arca::vsock
