#include "vsock/server.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/log.h"

namespace arca::vsock {

using base::Result;
using base::UniqueFd;
namespace log = base::log;

Server::Server(EventLoop& loop, const ServerOptions& options, std::vector<uid_t> users)
    : loop_(loop),
      keep_(options.keep),
      peers_(std::move(users)),
      dialer_(options.base_name, peers_),
      device_(loop, dialer_, options.device),
      hybrid_(loop, device_, peers_, options.device.max_streams),
      vmm_listener_(loop, *this),
      drain_(loop, [this] { drained_ = true; }) {}

Server::~Server() = default;

Result<> Server::listenForVmm(UniqueFd listener) {
    return vmm_listener_.open(std::move(listener), EPOLLIN);
}

Result<> Server::serveVmm(UniqueFd socket) {
    session_ = std::make_unique<VhostUserSession>(loop_, device_, [this] { onVmmGone(); });
    return session_->start(std::move(socket));
}

void Server::onEvents(uint32_t /*events*/) {
    UniqueFd socket(::accept4(vmm_listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.valid()) return;
    if (Result<> allowed = peers_.check(socket.get()); !allowed) {
        log::warning("VMM: " + allowed.error().message());
        return;
    }
    if (Result<> served = serveVmm(std::move(socket)); !served) {
        log::error(served.error().message());
        session_.reset();
        return;
    }
    log::info("the VMM connected");
    // One at a time; the next one waits in the queue, or finds nobody.
    if (keep_) {
        (void)vmm_listener_.setEvents(0);
    } else {
        vmm_listener_.close();
    }
}

void Server::onVmmGone() {
    session_.reset();
    if (keep_) {
        (void)vmm_listener_.setEvents(EPOLLIN);
        return;
    }
    hybrid_.stop();
    ending_ = true;
    drain_.start(kDrainTimeout);
}

Result<> Server::run() {
    bool more = false;
    while (!ending_ || !(drained_ || device_.idle())) {
        ARCA_CHECK(loop_.turn(more ? EventLoop::Wait::kNot : EventLoop::Wait::kForEvents));
        more = device_.work();
    }
    return {};
}

}  // namespace arca::vsock
