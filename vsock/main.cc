// arca-vsock: a vhost-user vsock device for a VMM, hybrid vsock sockets for the host.
//
// Exit codes: 0 the VMM ended, 1 something failed, 2 wrong arguments.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "vsock/confine.h"
#include "vsock/options.h"
#include "vsock/server.h"

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
namespace log = base::log;

// Guest memory is a file of the VMM's. When that shrinks it under us nothing can be saved; the
// handler only makes the cause visible.
void onBusError(int /*signal*/) {
    constexpr char kText[] = "arca-vsock: the VMM took guest memory away\n";
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, kText, sizeof kText - 1);
    ::_exit(1);
}

Result<> setUpSignals() {
    struct sigaction action {};
    action.sa_handler = SIG_IGN;
    if (::sigaction(SIGPIPE, &action, nullptr) != 0) return failErrno("ignore SIGPIPE");
    action.sa_handler = &onBusError;
    if (::sigaction(SIGBUS, &action, nullptr) != 0) return failErrno("handle SIGBUS");
    return {};
}

// One descriptor for each stream and each client that is still talking, and some for ourselves.
Result<> raiseFileLimit(size_t max_streams) {
    const rlim_t needed = 2 * max_streams + 64;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return failErrno("read the file limit");
    if (limit.rlim_cur >= needed) return {};
    limit.rlim_cur = needed;
    if (limit.rlim_max < needed) limit.rlim_max = needed;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return failErrno("raise the file limit to " + std::to_string(needed));
    }
    return {};
}

Result<int> socketOption(int fd, int option) {
    int value = 0;
    socklen_t size = sizeof value;
    if (::getsockopt(fd, SOL_SOCKET, option, &value, &size) != 0) return failErrno("getsockopt");
    return value;
}

// The VMM's socket as a path or as an inherited descriptor, given to `server`.
Result<> openVmmSocket(const Options& options, const PeerPolicy& owners, Server& server) {
    if (!options.vhost_user_fd) {
        ARCA_TRY(const SocketPlace place, openSocketPlace(options.vhost_user_path, owners));
        ARCA_TRY(UniqueFd listener,
                 base::listenUnix(place.directory.get(), place.name, SOCK_STREAM | SOCK_NONBLOCK));
        return server.listenForVmm(std::move(listener));
    }
    UniqueFd socket(*options.vhost_user_fd);
    const std::string what = "--vhost-user-fd " + std::to_string(*options.vhost_user_fd);
    const Result<int> domain = socketOption(socket.get(), SO_DOMAIN);
    const Result<int> type = socketOption(socket.get(), SO_TYPE);
    const Result<int> listens = socketOption(socket.get(), SO_ACCEPTCONN);
    if (!domain || !type || !listens || *domain != AF_UNIX || *type != SOCK_STREAM) {
        return fail(Code::kInvalidArgument, what + ": not a Unix stream socket");
    }
    if (*listens != 0) {
        const int flags = ::fcntl(socket.get(), F_GETFL);
        if (flags < 0 ||
            ::fcntl(socket.get(), F_SETFL, static_cast<unsigned>(flags) | O_NONBLOCK) != 0) {
            return failErrno(what + ": set non-blocking");
        }
        return server.listenForVmm(std::move(socket));
    }
    if (options.keep) {
        return fail(Code::kInvalidArgument, "--keep: " + what + " is one VMM's connection");
    }
    return server.serveVmm(std::move(socket));
}

Result<> tellReady(const Options& options) {
    if (!options.ready_fd) return {};
    const UniqueFd fd(*options.ready_fd);
    return base::writeAll(fd.get(), "\n");
}

Result<> run(const Options& options) {
    ARCA_CHECK(log::setUp({options.log, options.log_json ? log::Format::kJson : log::Format::kText,
                           options.debug ? log::Level::kDebug : log::Level::kInfo}));
    ARCA_CHECK(setUpSignals());
    ARCA_CHECK(raiseFileLimit(options.max_streams));

    std::vector<uid_t> users{::geteuid()};
    if (options.user) users.push_back(options.user->user);
    const PeerPolicy owners(users);
    ARCA_TRY(const SocketPlace base, openSocketPlace(options.base, owners));
    ARCA_TRY(UniqueFd host_listener,
             base::listenUnix(base.directory.get(), base.name, SOCK_STREAM | SOCK_NONBLOCK));

    ARCA_TRY(const std::unique_ptr<EventLoop> loop, EventLoop::create());
    Server server(*loop, {{options.cid, options.max_streams}, base.name, options.keep}, users);
    ARCA_CHECK(server.serveHost(std::move(host_listener)));
    ARCA_CHECK(openVmmSocket(options, owners, server));

    ARCA_CHECK(confine({base.directory.get(), options.user}));
    ARCA_CHECK(tellReady(options));
    return server.run();
}

int mainInner(int argc, char** argv) {
    const std::vector<const char*> arguments(argv + 1, argv + argc);
    Result<Options> options = parseOptions(arguments);
    if (!options) {
        log::error(options.error().message() + " (see arca-vsock --help)");
        return 2;
    }
    if (options->help) return base::writeAll(STDOUT_FILENO, kUsage) ? 0 : 1;
    if (Result<> done = run(*options); !done) {
        log::error(done.error().message());
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace arca::vsock

int main(int argc, char** argv) {
    try {
        return arca::vsock::mainInner(argc, argv);
    } catch (const std::exception& error) {
        arca::base::log::error(error.what());  // out of memory, in all likelihood
        return 1;
    }
}
