#include "runtime/sockets.h"

#include <sys/socket.h>

#include "base/socket.h"

namespace arca::runtime {

using base::fail;
using base::Result;
using base::UniqueFd;

Result<HandOver> connectHandOver(const std::string& console_path, const std::string& pidfd_path) {
    HandOver sockets;
    if (!console_path.empty()) {
        auto socket = base::connectUnixPath(console_path, SOCK_STREAM);
        if (!socket) return fail(std::move(socket).error().withContext("console socket"));
        sockets.console = std::move(*socket);
    }
    if (!pidfd_path.empty()) {
        auto socket = base::connectUnixPath(pidfd_path, SOCK_STREAM);
        if (!socket) {
            // The misspelling is runc's, and is what callers have seen so far.
            return fail(std::move(socket).error().withContext("failed to dail " + pidfd_path));
        }
        sockets.pidfd = std::move(*socket);
    }
    return sockets;
}

Result<> sendTerminal(const HandOver& sockets, int terminal_fd) {
    if (!sockets.console.valid()) return {};
    auto sent = base::sendMessage(sockets.console.get(), "/dev/ptmx", {terminal_fd});
    if (!sent) return fail(std::move(sent).error().withContext("console socket"));
    return {};
}

Result<> sendPidfd(const HandOver& sockets, const base::ProcessIdentity& process,
                   const std::string& payload) {
    if (!sockets.pidfd.valid()) return {};
    ARCA_TRY(const UniqueFd pidfd, base::openPidfd(process));
    auto sent = base::sendMessage(sockets.pidfd.get(), payload, {pidfd.get()});
    if (!sent) return fail(std::move(sent).error().withContext("pidfd socket"));
    return {};
}

}  // namespace arca::runtime
