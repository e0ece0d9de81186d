#include "base/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/files.h"

namespace arca::base {
namespace {

Result<sockaddr_un> addressFor(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return fail(Code::kInvalidArgument, "socket path " + path + ": longer than " +
                                                std::to_string(sizeof address.sun_path - 1) +
                                                " bytes");
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

Result<UniqueFd> newSocket(int type) {
    UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return failErrno("make a unix socket");
    return fd;
}

Result<UniqueFd> connectTo(const std::string& path, const std::string& shown, int type) {
    ARCA_TRY(const sockaddr_un address, addressFor(path));
    ARCA_TRY(UniqueFd fd, newSocket(type));
    while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        if (errno == EINTR) continue;
        const int why = errno;
        const Code code = why == ECONNREFUSED || why == ENOENT ? Code::kUnavailable : Code::kSystem;
        return fail(code, "connect to " + shown + ": " + errnoText(why), why);
    }
    return fd;
}

}  // namespace

Result<SocketPair> socketPair(int type) {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) != 0)
        return failErrno("socketpair");
    return SocketPair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Result<UniqueFd> connectUnix(int dir_fd, const std::string& name, int type) {
    return connectTo(fdPath(dir_fd) + "/" + name, name, type);
}

Result<UniqueFd> listenUnix(int dir_fd, const std::string& name, int type) {
    ARCA_TRY(const sockaddr_un address, addressFor(fdPath(dir_fd) + "/" + name));
    ARCA_TRY(UniqueFd fd, newSocket(type));
    if (::unlinkat(dir_fd, name.c_str(), 0) != 0 && errno != ENOENT)
        return failErrno("unlink " + name);
    // fchmod before bind sets the file's mode, whatever the umask, with no moment in between.
    if (::fchmod(fd.get(), 0600) != 0) return failErrno("chmod socket " + name);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return failErrno("bind " + name);
    }
    if (::listen(fd.get(), SOMAXCONN) != 0) return failErrno("listen on " + name);
    return fd;
}

Result<UniqueFd> connectUnixPath(const std::string& path, int type) {
    if (path.size() < sizeof(sockaddr_un{}.sun_path)) return connectTo(path, path, type);
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return connectTo(path, path, type);
    ARCA_TRY(UniqueFd dir, openAt(AT_FDCWD, path.substr(0, slash), O_PATH | O_DIRECTORY));
    return connectTo(fdPath(dir.get()) + path.substr(slash), path, type);
}

Result<bool> isUnixSocketListened(const std::string& path) {
    for (const int type : {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM}) {
        const auto fd = connectUnixPath(path, type | SOCK_NONBLOCK);
        if (fd) return true;
        const int why = fd.error().sysErrno();
        if (why == EPROTOTYPE) continue;  // another type's
        if (why == EAGAIN) return true;   // so many have connected that it is busy
        if (why == ENOENT || why == ECONNREFUSED || why == ENOTDIR) return false;
        return fail(fd.error());
    }
    return false;
}

Result<> sendMessage(int socket_fd, std::string_view data, const std::vector<int>& fds) {
    if (data.size() > kMaxMessageBytes || fds.size() > kMaxMessageFds) {
        return fail(Code::kInternal, "send message: larger than one message may be");
    }
    iovec part{const_cast<char*>(data.data()), data.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxMessageFds)> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!fds.empty()) {
        header.msg_control = control.data();
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
        cmsghdr* cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
        std::memcpy(CMSG_DATA(cmsg), fds.data(), sizeof(int) * fds.size());
    }
    ssize_t n = 0;
    do {
        n = ::sendmsg(socket_fd, &header, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        const bool gone = errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN;
        return fail(gone ? Code::kUnavailable : Code::kSystem, "send message: " + errnoText(errno),
                    errno);
    }
    // A stream socket may take less; nobody here sends more than its buffer at once.
    if (static_cast<size_t>(n) != data.size())
        return fail(Code::kSystem, "send message: short write");
    return {};
}

Result<bool> waitReadable(int fd, std::optional<std::chrono::milliseconds> timeout) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = timeout ? Clock::now() + *timeout : Clock::time_point::max();
    while (true) {
        int wait_ms = -1;
        if (timeout) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
            wait_ms = static_cast<int>(std::max<int64_t>(0, left.count()));
        }
        pollfd entry{fd, POLLIN, 0};
        const int n = ::poll(&entry, 1, wait_ms);
        if (n > 0) return true;
        if (n == 0) return false;
        if (errno != EINTR) return failErrno("poll");
    }
}

Result<std::optional<Message>> receiveMessage(int socket_fd,
                                              std::optional<std::chrono::milliseconds> timeout) {
    if (timeout) {
        ARCA_TRY(const bool ready, waitReadable(socket_fd, timeout));
        if (!ready) return fail(Code::kDeadlineExceeded, "receive message: timed out");
    }
    Message message;
    message.data.resize(kMaxMessageBytes);
    iovec part{message.data.data(), message.data.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxMessageFds)> control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    ssize_t n = 0;
    do {
        n = ::recvmsg(socket_fd, &header, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == ECONNRESET) return std::optional<Message>();
    if (n < 0) return failErrno("receive message");
    for (cmsghdr* cmsg = CMSG_FIRSTHDR(&header); cmsg != nullptr;
         cmsg = CMSG_NXTHDR(&header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof fd);
            message.fds.emplace_back(fd);
        }
    }
    if ((static_cast<unsigned>(header.msg_flags) & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        return fail(Code::kInternal, "receive message: truncated");
    }
    if (n == 0 && message.fds.empty()) return std::optional<Message>();
    message.data.resize(static_cast<size_t>(n));
    message.data.shrink_to_fit();
    return std::optional<Message>(std::move(message));
}

Result<PeerCredentials> peerCredentials(int socket_fd) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        return failErrno("read peer credentials");
    }
    return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

}  // namespace arca::base
