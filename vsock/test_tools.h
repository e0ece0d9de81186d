// What the tests of this folder share: a clock that is moved by hand, socket pairs, a loop.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/socket.h"
#include "vsock/device.h"
#include "vsock/event_loop.h"

namespace arca::vsock::testing {

// Now, as far as the loops of makeLoop() know.
inline EventLoop::Clock::time_point fake_now;

inline std::unique_ptr<EventLoop> makeLoop() {
    auto loop = EventLoop::create([] { return fake_now; });
    BOOST_TEST_REQUIRE(bool(loop));
    return std::move(*loop);
}

// {ours, the other side's}; ours is non-blocking like every host socket of the device.
inline std::pair<base::UniqueFd, base::UniqueFd> makePair() {
    auto pair = base::socketPair(SOCK_STREAM | SOCK_NONBLOCK);
    BOOST_TEST_REQUIRE(bool(pair));
    return {std::move(pair->first), std::move(pair->second)};
}

// What is in the socket now.
inline std::string readNow(const base::UniqueFd& fd) {
    std::string out;
    char buffer[65536];
    ssize_t n = 0;
    while ((n = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
        out.append(buffer, static_cast<size_t>(n));
    }
    return out;
}

// True when the other side has ended its direction and nothing is left to read.
inline bool atEnd(const base::UniqueFd& fd) {
    char c = 0;
    const ssize_t n = ::recv(fd.get(), &c, 1, MSG_DONTWAIT | MSG_PEEK);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

inline size_t writeNow(const base::UniqueFd& fd, std::string_view data) {
    const ssize_t n = ::send(fd.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? 0 : static_cast<size_t>(n);
}

// Writes until the socket takes no more; gives the bytes written.
inline size_t fill(const base::UniqueFd& fd) {
    const std::string block(65536, 'f');
    size_t total = 0;
    while (const size_t n = writeNow(fd, block)) total += n;
    return total;
}

inline size_t openDescriptors() {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
        ++count;
    }
    return count;
}

// Hands out socket pairs for the ports that are served.
class FakeDialer final : public HostDialer {
 public:
    base::Result<base::UniqueFd> dial(uint32_t port) override {
        ++dials;
        if (!served) return base::fail(base::Code::kNotFound, "nobody serves this");
        auto [ours, theirs] = makePair();
        services[port].push_back(std::move(theirs));
        return std::move(ours);
    }
    // The host program's end of the latest connection to `port`.
    base::UniqueFd& service(uint32_t port) { return services.at(port).back(); }

    bool served = true;
    int dials = 0;
    std::map<uint32_t, std::vector<base::UniqueFd>> services;
};

}  // namespace arca::vsock::testing
