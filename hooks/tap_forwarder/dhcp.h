// DHCP for one interface, by a client program of the system the forwarder runs in.
//
// udhcpc, busybox or dhclient, whatever is found first in PATH, runs as long as the network is
// attached and renews the lease. A thread of its own starts it when the host is connected (before
// that nobody would answer), at most three times in a row without a lease.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/stop_signal.h"
#include "base/unique_fd.h"
#include "hooks/tap_forwarder/dhcp_script.h"

namespace arca::tap_forwarder {

// A client program and its arguments for `interface`; `script` is the path of what it is to run.
// kNotFound when `path` (as $PATH) has none.
struct DhcpProgram {
    std::string file;
    std::vector<std::string> args;
};
base::Result<DhcpProgram> findDhcpProgram(const std::string& path, const std::string& interface,
                                          const std::string& script);

class DhcpClient {
 public:
    // Called on the client's thread at each change; nullopt: the lease is lost.
    using Changed = std::function<void(const std::optional<Lease>&)>;

    static base::Result<std::unique_ptr<DhcpClient>> start(std::string interface, Changed changed);
    // Ends the client program and what it has started, at once.
    ~DhcpClient();
    DhcpClient(const DhcpClient&) = delete;
    DhcpClient& operator=(const DhcpClient&) = delete;

    // The host is connected (again). From any thread.
    void connected();

 private:
    enum class End { kStopped, kNoLease, kLeaseOver };

    DhcpClient(std::string interface, Changed changed, base::UniqueFd wake)
        : interface_(std::move(interface)), changed_(std::move(changed)), wake_(std::move(wake)) {}
    void run();
    // All attempts after a connection; false: it is to end.
    bool attempts();
    base::Result<End> runProgram();
    End follow(int output, int pidfd);
    void takeLines(std::string& text, bool& bound);
    // False: it is to end.
    bool pause(std::chrono::seconds time);

    std::string interface_;
    Changed changed_;
    base::UniqueFd wake_;  // eventfd: connected
    base::StopSignal stop_;
    std::thread thread_;
};

}  // namespace arca::tap_forwarder
