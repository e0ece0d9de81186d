// The other end of vm_test.py: runs as the only program of a test VM and serves vsock ports.
//
//   1024  echo: every byte back; end of file after end of file
//   1025  sink: reads to the end, then answers "<bytes>\n"
//   1026  source: reads "<bytes>\n", sends that many
//   1027  store: reads "store\n" and keeps what follows to the end, answers "<bytes>\n"; or reads
//         "fetch\n" and sends what was kept
//   1028  control: one command a connection, see runCommand()
//   1029  stall: reads nothing until the command `release`, then to the end, and answers
//   "<bytes>\n"
//
// A thread for each connection; test code, but it must not die of what a test does to it.
#include <linux/vm_sockets.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "base/unique_fd.h"

namespace {

using arca::base::parseNumber;
using arca::base::split;
using arca::base::UniqueFd;

using Handler = void (*)(UniqueFd);

std::mutex kept_lock;
std::vector<char> kept;
std::atomic<unsigned> releases = 0;  // how often the stalled ones were let go

std::string errnoName() {
    return ::strerrorname_np(errno);
}

bool sendAll(int fd, std::string_view data) {
    while (!data.empty()) {
        const ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
        if (n <= 0) return false;
        data.remove_prefix(static_cast<size_t>(n));
    }
    return true;
}

std::string readLine(int fd) {
    std::string line;
    char c = 0;
    while (line.size() < 256 && ::recv(fd, &c, 1, 0) == 1) {
        if (c == '\n') break;
        line += c;
    }
    return line;
}

// Everything up to the end; the callback sees each piece.
void readToEnd(int fd, const std::function<void(std::string_view)>& piece) {
    std::vector<char> buffer(256 << 10);
    while (true) {
        const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
        if (n <= 0) return;
        piece({buffer.data(), static_cast<size_t>(n)});
    }
}

void echo(UniqueFd fd) {
    readToEnd(fd.get(), [&](std::string_view data) { (void)sendAll(fd.get(), data); });
}

void sink(UniqueFd fd) {
    size_t bytes = 0;
    readToEnd(fd.get(), [&](std::string_view data) { bytes += data.size(); });
    (void)sendAll(fd.get(), std::to_string(bytes) + "\n");
}

void source(UniqueFd fd) {
    size_t left = parseNumber<size_t>(readLine(fd.get())).value_or(0);
    const std::string block(256 << 10, 'x');
    while (left > 0) {
        const size_t count = std::min(left, block.size());
        if (!sendAll(fd.get(), std::string_view(block).substr(0, count))) return;
        left -= count;
    }
}

void store(UniqueFd fd) {
    const std::string what = readLine(fd.get());
    const std::lock_guard<std::mutex> guard(kept_lock);
    if (what == "fetch") {
        (void)sendAll(fd.get(), {kept.data(), kept.size()});
        return;
    }
    kept.clear();
    readToEnd(fd.get(),
              [](std::string_view data) { kept.insert(kept.end(), data.begin(), data.end()); });
    (void)sendAll(fd.get(), std::to_string(kept.size()) + "\n");
}

void stall(UniqueFd fd) {
    releases.wait(releases.load());
    sink(std::move(fd));
}

UniqueFd dial(unsigned cid, unsigned port, int type = SOCK_STREAM) {
    UniqueFd fd(::socket(AF_VSOCK, type | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return fd;
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        fd.reset();
    }
    return fd;
}

// Connects to the host, says so, ends that direction, and gives what the host says after that.
std::string halfClose(unsigned port) {
    const UniqueFd fd = dial(VMADDR_CID_HOST, port);
    if (!fd.valid()) return "error " + errnoName();
    (void)sendAll(fd.get(), "from the guest");
    (void)::shutdown(fd.get(), SHUT_WR);
    std::string got;
    readToEnd(fd.get(), [&](std::string_view data) { got += data; });
    return "got " + got;
}

// `count` connections to the host at the same time, each with a number of its own that must come
// back; answers how many did.
std::string manyToHost(unsigned port, unsigned count) {
    std::vector<UniqueFd> fds;
    for (unsigned i = 0; i < count; ++i) {
        fds.push_back(dial(VMADDR_CID_HOST, port));
        if (!fds.back().valid()) return "error " + errnoName() + " at " + std::to_string(i);
    }
    unsigned good = 0;
    for (unsigned i = 0; i < count; ++i) {
        (void)sendAll(fds[i].get(), "number " + std::to_string(i) + "\n");
    }
    for (unsigned i = 0; i < count; ++i) {
        if (readLine(fds[i].get()) == "number " + std::to_string(i)) ++good;
    }
    return "good " + std::to_string(good);
}

// Stays connected to the host until that ends, then says how.
std::string hold(unsigned port) {
    const UniqueFd fd = dial(VMADDR_CID_HOST, port);
    if (!fd.valid()) return "error " + errnoName();
    char c = 0;
    const ssize_t n = ::recv(fd.get(), &c, 1, 0);
    if (n > 0) return "data";
    return n == 0 ? "end" : "error " + errnoName();
}

// Sends `bytes` to the host and closes at once; `buffer`: bytes of the socket's, 0: as it comes.
std::string sendAndClose(unsigned port, size_t bytes, uint64_t buffer) {
    const UniqueFd fd = dial(VMADDR_CID_HOST, port);
    if (!fd.valid()) return "error " + errnoName();
    if (buffer != 0 &&
        ::setsockopt(fd.get(), AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &buffer, sizeof buffer) != 0)
        return "error " + errnoName();
    return sendAll(fd.get(), std::string(bytes, 'y')) ? "ok" : "error " + errnoName();
}

std::string runCommand(const std::string& line) {
    const std::vector<std::string_view> words = split(line, ' ');
    const auto number = [&](size_t i) {
        return i < words.size() ? parseNumber<unsigned>(words[i]).value_or(0) : 0;
    };
    if (words[0] == "connect") {  // CID PORT
        return dial(number(1), number(2)).valid() ? "ok" : "error " + errnoName();
    }
    if (words[0] == "seqpacket") {  // PORT
        const UniqueFd fd = dial(VMADDR_CID_HOST, number(1), SOCK_SEQPACKET);
        return fd.valid() ? "ok" : "error " + errnoName();
    }
    if (words[0] == "half") return halfClose(number(1));              // PORT
    if (words[0] == "many") return manyToHost(number(1), number(2));  // PORT COUNT
    if (words[0] == "hold") return hold(number(1));                   // PORT
    if (words[0] == "send") {                                         // PORT BYTES [BUFFER]
        return sendAndClose(number(1), number(2), number(3));
    }
    if (words[0] == "release") {
        ++releases;
        releases.notify_all();
        return "ok";
    }
    if (words[0] == "poweroff") return std::to_string(::reboot(RB_POWER_OFF));
    return "error unknown";
}

void control(UniqueFd fd) {
    (void)sendAll(fd.get(), runCommand(readLine(fd.get())) + "\n");
}

UniqueFd listenOn(unsigned port) {
    UniqueFd listener(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = VMADDR_CID_ANY;
    address.svm_port = port;
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener.get(), 1024) != 0) {
        std::perror("vm_guest: listen");
    }
    return listener;
}

void serve(UniqueFd listener, Handler handler) {
    while (true) {
        UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (fd.valid()) std::thread(handler, std::move(fd)).detach();
    }
}

}  // namespace

int main() {
    (void)::signal(SIGPIPE, SIG_IGN);
    // The echo port last: who reaches it finds the others served.
    constexpr std::array<std::pair<unsigned, Handler>, 6> kPorts = {{{1025, &sink},
                                                                     {1026, &source},
                                                                     {1027, &store},
                                                                     {1028, &control},
                                                                     {1029, &stall},
                                                                     {1024, &echo}}};
    std::vector<std::thread> servers;
    servers.reserve(kPorts.size());
    for (const auto& [port, handler] : kPorts) servers.emplace_back(serve, listenOn(port), handler);
    std::puts("vm_guest: ready");
    (void)std::fflush(stdout);
    for (std::thread& server : servers) server.join();
    return 1;
}
