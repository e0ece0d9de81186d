// Readiness: what a program in the container says by sd_notify(3) reaches the service manager that
// started us. Only with NOTIFY_SOCKET in our environment.
//
// create adds a folder of ours to the container as /run/notify; start and run bind the socket in
// it and pass the first READY on, with the init as the main process. Source: runc's behaviour.
#pragma once

#include <string>

#include "base/process.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/state_store.h"
#include "spec/spec.h"

namespace arca::runtime {

// Makes the container's folder and adds the mount and the variable to `spec`, if NOTIFY_SOCKET is
// set.
base::Result<> addNotifySocket(const ContainerDir& dir, spec::Spec& spec);

class NotifyProxy {
 public:
    // Binds the socket. Inactive when NOTIFY_SOCKET is not set, or was not at create.
    static base::Result<NotifyProxy> open(const ContainerDir& dir);

    // -1 when inactive, or when there is nothing more to pass on.
    [[nodiscard]] int fd() const { return socket_.get(); }

    // Blocks until READY has been passed on or `init` has ended.
    base::Result<> waitReady(const base::ProcessIdentity& init);

    // For when fd() is readable: takes one message. After READY the proxy is inactive.
    base::Result<> receive(pid_t main_pid);

 private:
    NotifyProxy() = default;
    base::Result<> passOn(std::string_view ready, pid_t main_pid);
    base::UniqueFd socket_;
    std::string host_;  // the service manager's socket
};

// The first line "READY=..." of a message, or "".
std::string_view readyLine(std::string_view message);

}  // namespace arca::runtime
