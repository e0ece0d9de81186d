#include "base/transport.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
// After sys/socket.h: it needs sa_family_t.
#include <linux/vm_sockets.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

#include "base/files.h"
#include "base/socket.h"
#include "base/strings.h"
#include "base/vsock_ports.h"

namespace arca::base {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

milliseconds left(Clock::time_point deadline) {
    return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(deadline - Clock::now()));
}

Result<UniqueFd> acceptFrom(int fd) {
    while (true) {
        UniqueFd peer(::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC));
        if (peer.valid()) return peer;
        if (errno != EINTR && errno != ECONNABORTED) return failErrno("accept a connection");
    }
}

// A listening socket file that is removed with the listener.
class FileListener final : public Listener {
 public:
    FileListener(UniqueFd dir, std::string name, UniqueFd fd)
        : dir_(std::move(dir)), name_(std::move(name)), fd_(std::move(fd)) {}
    FileListener(const FileListener&) = delete;
    FileListener& operator=(const FileListener&) = delete;
    ~FileListener() override { (void)::unlinkat(dir_.get(), name_.c_str(), 0); }
    [[nodiscard]] int fd() const override { return fd_.get(); }
    Result<UniqueFd> accept() override { return acceptFrom(fd_.get()); }

 private:
    UniqueFd dir_;
    std::string name_;
    UniqueFd fd_;
};

// ---- AF_VSOCK ----

class VsockListener final : public Listener {
 public:
    VsockListener(UniqueFd fd, uint32_t peer_cid) : fd_(std::move(fd)), peer_cid_(peer_cid) {}
    [[nodiscard]] int fd() const override { return fd_.get(); }
    Result<UniqueFd> accept() override {
        ARCA_TRY(UniqueFd peer, acceptFrom(fd_.get()));
        sockaddr_vm address{};
        socklen_t size = sizeof address;
        if (::getpeername(peer.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
            return fail(Code::kUnavailable, "getpeername: " + errnoText(errno), EAGAIN);
        }
        if (address.svm_family == AF_VSOCK && address.svm_cid == peer_cid_) return peer;
        return fail(Code::kPermissionDenied,
                    "connection of CID " + std::to_string(address.svm_cid) + " refused", EAGAIN);
    }

 private:
    UniqueFd fd_;
    uint32_t peer_cid_;
};

sockaddr_vm vsockAddress(uint32_t cid, uint32_t port) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    return address;
}

Result<> finishConnect(int fd, Clock::time_point deadline, const std::string& what) {
    pollfd entry{fd, POLLOUT, 0};
    while (true) {
        const int n = ::poll(&entry, 1, static_cast<int>(left(deadline).count()));
        if (n > 0) break;
        if (n == 0) return fail(Code::kDeadlineExceeded, what + ": timed out");
        if (errno != EINTR) return failErrno("poll");
    }
    auto settled = finishDial(fd);
    if (!settled) return fail(std::move(settled).error().withContext(what));
    return {};
}

class VsockTransport final : public Transport {
 public:
    explicit VsockTransport(uint32_t cid) : cid_(cid) {}

    Result<UniqueFd> dial(uint32_t port, milliseconds timeout) override {
        const auto deadline = Clock::now() + timeout;
        ARCA_TRY(UniqueFd fd, beginDial(port));
        ARCA_CHECK(finishConnect(fd.get(), deadline,
                                 "connect to " + address() + ":" + std::to_string(port)));
        if (::fcntl(fd.get(), F_SETFL, 0) != 0) return failErrno("clear O_NONBLOCK");
        return fd;
    }

    Result<UniqueFd> beginDial(uint32_t port) override {
        UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!fd.valid()) return failErrno("make a vsock socket");
        const sockaddr_vm peer = vsockAddress(cid_, port);
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer) != 0 &&
            errno != EINPROGRESS && errno != EINTR) {
            return fail(
                Code::kUnavailable,
                "connect to " + address() + ":" + std::to_string(port) + ": " + errnoText(errno),
                errno);
        }
        return fd;
    }

    Result<std::unique_ptr<Listener>> listen(uint32_t port) override {
        UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (!fd.valid()) return failErrno("make a vsock socket");
        const sockaddr_vm own = vsockAddress(VMADDR_CID_ANY, port);
        const std::string what = "listen on vsock port " + std::to_string(port);
        if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) {
            return failErrno(what);
        }
        if (::listen(fd.get(), SOMAXCONN) != 0) return failErrno(what);
        return std::unique_ptr<Listener>(new VsockListener(std::move(fd), cid_));
    }

    Result<bool> isListened(uint32_t port) override { return isVsockPortListened(port); }

    [[nodiscard]] std::string address() const override { return "vsock://" + std::to_string(cid_); }

 private:
    uint32_t cid_;
};

// ---- a socket file in a folder, by descriptor ----

struct FolderAndName {
    UniqueFd dir;
    std::string name;
};

Result<FolderAndName> openFolderOf(const std::string& path) {
    const size_t slash = path.rfind('/');
    ARCA_TRY(UniqueFd dir, openAt(AT_FDCWD, path.substr(0, slash + 1), O_PATH | O_DIRECTORY));
    return FolderAndName{std::move(dir), path.substr(slash + 1)};
}

Result<std::unique_ptr<Listener>> listenOnFile(const std::string& path) {
    ARCA_TRY(FolderAndName at, openFolderOf(path));
    ARCA_TRY(UniqueFd fd, listenUnix(at.dir.get(), at.name, SOCK_STREAM));
    return std::unique_ptr<Listener>(
        new FileListener(std::move(at.dir), std::move(at.name), std::move(fd)));
}

// connect(2) on a Unix socket blocks while the listener's queue is full, without a limit.
Result<UniqueFd> connectInTime(const std::string& path, Clock::time_point deadline) {
    const timespec pause{0, 10'000'000};
    while (true) {
        auto fd = connectUnixPath(path, SOCK_STREAM | SOCK_NONBLOCK);
        if (fd) {
            if (::fcntl(fd->get(), F_SETFL, 0) != 0) return failErrno("clear O_NONBLOCK");
            return fd;
        }
        if (fd.error().sysErrno() != EAGAIN) return fd;
        if (Clock::now() >= deadline) {
            return fail(Code::kDeadlineExceeded, "connect " + path + ": nobody accepts");
        }
        (void)::nanosleep(&pause, nullptr);
    }
}

// ---- hybrid vsock ----

// Reads "OK <number>\n" byte by byte: what follows belongs to the stream. The number is the local
// port that the VMM chose, so only the form is checked.
Result<> readHandshake(int fd, Clock::time_point deadline, const std::string& what) {
    constexpr size_t kLongestLine = 32;
    std::string line;
    while (line.size() < kLongestLine) {
        ARCA_TRY(const bool ready, waitReadable(fd, left(deadline)));
        if (!ready) return fail(Code::kDeadlineExceeded, what + ": no answer in time");
        char byte = 0;
        const ssize_t n = ::recv(fd, &byte, 1, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail(Code::kUnavailable, what + ": nobody listens on that port");
        if (byte != '\n') {
            line += byte;
            continue;
        }
        if (line.rfind("OK ", 0) == 0 && parseNumber<uint32_t>(std::string_view(line).substr(3)))
            return {};
        break;
    }
    return fail(Code::kUnavailable, what + ": unexpected answer \"" + printable(line) + "\"");
}

class HybridTransport final : public Transport {
 public:
    explicit HybridTransport(std::string path) : path_(std::move(path)) {}

    Result<UniqueFd> dial(uint32_t port, milliseconds timeout) override {
        const auto deadline = Clock::now() + timeout;
        const std::string what = "connect to " + address() + " port " + std::to_string(port);
        ARCA_TRY(UniqueFd fd, connectInTime(path_, deadline));
        ARCA_CHECK(sendMessage(fd.get(), "CONNECT " + std::to_string(port) + "\n"));
        ARCA_CHECK(readHandshake(fd.get(), deadline, what));
        return fd;
    }

    Result<UniqueFd> beginDial(uint32_t /*port*/) override {
        return fail(Code::kUnsupported, address() + ": is dialled by waiting only");
    }

    Result<std::unique_ptr<Listener>> listen(uint32_t port) override {
        return listenOnFile(path_ + "_" + std::to_string(port));
    }

    Result<bool> isListened(uint32_t /*port*/) override {
        return fail(Code::kUnsupported, address() + ": does not tell who listens");
    }

    [[nodiscard]] std::string address() const override { return "hvsock://" + path_; }

 private:
    std::string path_;
};

// ---- a folder of sockets ----

class FolderTransport final : public Transport {
 public:
    explicit FolderTransport(std::string path) : path_(std::move(path)) {}

    Result<UniqueFd> dial(uint32_t port, milliseconds timeout) override {
        return connectInTime(path_ + "/" + std::to_string(port), Clock::now() + timeout);
    }

    Result<UniqueFd> beginDial(uint32_t port) override {
        return connectUnixPath(path_ + "/" + std::to_string(port), SOCK_STREAM | SOCK_NONBLOCK);
    }

    Result<std::unique_ptr<Listener>> listen(uint32_t port) override {
        // As for a port of vsock. Only the file of a listener that is gone may be replaced.
        const std::string path = path_ + "/" + std::to_string(port);
        const auto taken = connectUnixPath(path, SOCK_STREAM | SOCK_NONBLOCK);
        if (taken || taken.error().sysErrno() == EAGAIN) {
            return failErrno("listen on " + path, EADDRINUSE);
        }
        return listenOnFile(path);
    }

    Result<bool> isListened(uint32_t port) override {
        return isUnixSocketListened(path_ + "/" + std::to_string(port));
    }

    [[nodiscard]] std::string address() const override { return "unix://" + path_; }

 private:
    std::string path_;
};

}  // namespace

Result<> finishDial(int fd) {
    int why = 0;
    socklen_t size = sizeof why;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) != 0) return failErrno("getsockopt");
    if (why != 0) return fail(Code::kUnavailable, errnoText(why), why);
    return {};
}

Result<std::unique_ptr<Transport>> openTransport(std::string_view address) {
    const auto wrong = [&](const std::string& why) {
        return fail(Code::kInvalidArgument, "address \"" + printable(address) + "\": " + why);
    };
    const size_t scheme_end = address.find("://");
    if (scheme_end == std::string_view::npos) {
        return wrong("not of the form vsock://CID, hvsock://PATH or unix://DIR");
    }
    const std::string_view scheme = address.substr(0, scheme_end);
    const std::string_view rest = address.substr(scheme_end + 3);
    if (scheme == "vsock") {
        // A port after the CID is the agent's and always the same one; it is checked, not stored.
        const auto parts = split(rest, ':');
        const auto cid = parseNumber<uint32_t>(parts[0]);
        if (!cid || parts.size() > 2) return wrong("the CID is not a number");
        if (parts.size() == 2 && parseNumber<uint32_t>(parts[1]) != kAgentPort) {
            return wrong("the agent's port is " + std::to_string(kAgentPort));
        }
        return std::unique_ptr<Transport>(new VsockTransport(*cid));
    }
    if (scheme != "hvsock" && scheme != "unix") return wrong("unknown kind");
    if (rest.empty() || rest.front() != '/') return wrong("the path is not absolute");
    if (rest.find('\0') != std::string_view::npos) return wrong("NUL byte in the path");
    const std::string path = cleanPath(rest);
    if (scheme == "unix") return std::unique_ptr<Transport>(new FolderTransport(path));
    return std::unique_ptr<Transport>(new HybridTransport(path));
}

}  // namespace arca::base
