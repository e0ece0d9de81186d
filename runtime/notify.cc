#include "runtime/notify.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>

#include "base/files.h"
#include "base/pipe.h"
#include "base/socket.h"
#include "base/strings.h"
#include "runtime/context.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr char kFolder[] = "notify";
constexpr char kSocket[] = "notify.sock";
constexpr char kInContainer[] = "/run/notify";
constexpr std::chrono::seconds kBarrierPatience{30};

struct Address {
    sockaddr_un address{};
    socklen_t size = 0;
};

// A path, or '@' and the name of an abstract socket. Source: sd_notify(3).
Result<Address> addressOf(const std::string& name) {
    Address result;
    result.address.sun_family = AF_UNIX;
    if (name.empty() || name.size() >= sizeof result.address.sun_path) {
        return fail(Code::kInvalidArgument, "NOTIFY_SOCKET: not a socket's name");
    }
    std::memcpy(result.address.sun_path, name.data(), name.size());
    if (name.front() == '@') result.address.sun_path[0] = '\0';
    result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    return result;
}

}  // namespace

std::string_view readyLine(std::string_view message) {
    for (const std::string_view line : base::split(message, '\n')) {
        if (line.rfind("READY=", 0) == 0) return line;
    }
    return {};
}

Result<> addNotifySocket(const ContainerDir& dir, spec::Spec& spec) {
    if (environmentValue("NOTIFY_SOCKET").empty()) return {};
    // Open to every user of the container; outside of it the state root keeps others away.
    if (::mkdirat(dir.fd(), kFolder, 0755) != 0 && errno != EEXIST)
        return failErrno("mkdir notify");
    if (::fchmodat(dir.fd(), kFolder, 0755, 0) != 0) return failErrno("chmod notify");
    char buffer[4096];
    const ssize_t n = ::readlink(base::fdPath(dir.fd()).c_str(), buffer, sizeof buffer);
    if (n < 0) return failErrno("readlink the container's folder");
    spec::Mount mount;
    mount.destination = kInContainer;
    mount.type = "bind";
    mount.source = std::string(buffer, static_cast<size_t>(n)) + "/" + kFolder;
    mount.options = {"bind", "nosuid", "noexec", "nodev", "ro"};
    spec.mounts.push_back(std::move(mount));
    if (spec.process) {
        spec.process->env.push_back(std::string("NOTIFY_SOCKET=") + kInContainer + "/" + kSocket);
    }
    return {};
}

Result<NotifyProxy> NotifyProxy::open(const ContainerDir& dir) {
    NotifyProxy proxy;
    proxy.host_ = environmentValue("NOTIFY_SOCKET");
    if (proxy.host_.empty()) return proxy;
    auto folder = base::openAt(dir.fd(), kFolder, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!folder && folder.error().sysErrno() == ENOENT) return proxy;
    if (!folder) return fail(std::move(folder).error());
    ARCA_TRY(const Address address, addressOf(base::fdPath(folder->get()) + "/" + kSocket));
    UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return failErrno("make the notify socket");
    if (::unlinkat(folder->get(), kSocket, 0) != 0 && errno != ENOENT) {
        return failErrno("unlink the notify socket");
    }
    // Before bind it sets the file's mode, whatever the umask.
    if (::fchmod(socket.get(), 0777) != 0) return failErrno("chmod the notify socket");
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.address), address.size) !=
        0) {
        return failErrno("bind the notify socket");
    }
    proxy.socket_ = std::move(socket);
    return proxy;
}

Result<> NotifyProxy::waitReady(const base::ProcessIdentity& init) {
    if (fd() < 0) return {};
    auto pidfd = base::openPidfd(init);
    if (!pidfd && pidfd.error().code() == Code::kNotFound) return {};
    if (!pidfd) return fail(std::move(pidfd).error());
    while (fd() >= 0) {
        std::array<pollfd, 2> entries{pollfd{fd(), POLLIN, 0}, pollfd{pidfd->get(), POLLIN, 0}};
        if (::poll(entries.data(), entries.size(), -1) < 0) {
            if (errno != EINTR) return failErrno("poll");
            continue;
        }
        // What it said before it ended still counts.
        if (entries[0].revents != 0) {
            ARCA_CHECK(receive(init.pid));
        } else if (entries[1].revents != 0) {
            return {};
        }
    }
    return {};
}

Result<> NotifyProxy::receive(pid_t main_pid) {
    std::array<char, 4096> buffer;
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    if (n < 0) return failErrno("read the notify socket");
    const std::string_view ready = readyLine({buffer.data(), static_cast<size_t>(n)});
    if (ready.empty()) return {};
    auto passed = passOn(ready, main_pid);
    socket_.reset();
    return passed;
}

Result<> NotifyProxy::passOn(std::string_view ready, pid_t main_pid) {
    ARCA_TRY(const Address address, addressOf(host_));
    const UniqueFd host(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!host.valid()) return failErrno("make a unix socket");
    if (::connect(host.get(), reinterpret_cast<const sockaddr*>(&address.address), address.size) !=
        0) {
        return failErrno("connect to NOTIFY_SOCKET");
    }
    ARCA_CHECK(base::sendMessage(host.get(), std::string(ready) + "\n"));
    if (main_pid <= 0) return {};
    ARCA_CHECK(base::sendMessage(host.get(), "MAINPID=" + std::to_string(main_pid) + "\n"));
    // Only when the service manager has closed this descriptor has it read what came before; we
    // may not be gone by then, or it would not know who we were.
    ARCA_TRY(base::Pipe pipe, base::makePipe());
    ARCA_CHECK(base::sendMessage(host.get(), "BARRIER=1", {pipe.write_end.get()}));
    pipe.write_end.reset();
    ARCA_CHECK(base::waitReadable(pipe.read_end.get(), kBarrierPatience));
    return {};
}

}  // namespace arca::runtime
