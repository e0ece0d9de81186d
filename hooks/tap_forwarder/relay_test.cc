// The relay between a pair of packet sockets in the place of a TAP device and a stream socket.
#include "hooks/tap_forwarder/relay.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <functional>
#include <numeric>
#include <vector>

#include "base/socket.h"
#include "base/temp_dir.h"

namespace arca::tap_forwarder {
namespace {

using base::UniqueFd;
using std::chrono::milliseconds;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t kPort = 7001;
constexpr milliseconds kSeconds{10'000};

Bytes numbered(size_t size, uint8_t first = 1) {
    Bytes out(size);
    std::iota(out.begin(), out.end(), first);
    return out;
}

void waitFor(int fd, int16_t events) {
    pollfd entry{fd, events, 0};
    BOOST_TEST_REQUIRE(::poll(&entry, 1, static_cast<int>(kSeconds.count())) == 1);
}

void until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kSeconds;
    while (!condition()) {
        BOOST_TEST_REQUIRE((std::chrono::steady_clock::now() < deadline));
        (void)::poll(nullptr, 0, 1);
    }
}

struct World {
    explicit World(VnetHeader vnet_header = VnetHeader::kNo)
        : transport(*base::openTransport("unix://" + folder.path())) {
        auto pair = base::socketPair(SOCK_SEQPACKET);
        BOOST_TEST_REQUIRE(pair.has_value());
        device = std::move(pair->first);
        (void)::fcntl(pair->second.get(), F_SETFL, O_NONBLOCK);
        relay = *Relay::start({.name = "t0",
                               .device = std::move(pair->second),
                               .vnet_header = vnet_header,
                               .listener = *transport->listen(kPort),
                               .connected = [this] { ++connections; }});
    }

    UniqueFd connect() { return *transport->dial(kPort, kSeconds); }

    // The guest's kernel sends and receives.
    void leave(const Bytes& frame) const {
        BOOST_TEST_REQUIRE(::send(device.get(), frame.data(), frame.size(), 0) ==
                           static_cast<ssize_t>(frame.size()));
    }
    Bytes arrived() const {
        Bytes out(base::kMaxVnetFrame);
        waitFor(device.get(), POLLIN);
        const ssize_t n = ::recv(device.get(), out.data(), out.size(), 0);
        BOOST_TEST_REQUIRE(n > 0);
        out.resize(static_cast<size_t>(n));
        return out;
    }

    base::TempDir folder;
    std::unique_ptr<base::Transport> transport;
    UniqueFd device;
    std::atomic<int> connections{0};
    std::unique_ptr<Relay> relay;
};

void sendAll(const UniqueFd& host, const Bytes& bytes) {
    size_t at = 0;
    while (at < bytes.size()) {
        const ssize_t n = ::send(host.get(), bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
        BOOST_TEST_REQUIRE(n > 0);
        at += static_cast<size_t>(n);
    }
}

Bytes receive(const UniqueFd& host, size_t count) {
    Bytes out(count);
    size_t at = 0;
    while (at < count) {
        waitFor(host.get(), POLLIN);
        const ssize_t n = ::recv(host.get(), out.data() + at, count - at, 0);
        BOOST_TEST_REQUIRE(n > 0);
        at += static_cast<size_t>(n);
    }
    return out;
}

void expectEnd(const UniqueFd& host) {
    char byte = 0;
    waitFor(host.get(), POLLIN);
    const ssize_t n = ::recv(host.get(), &byte, 1, 0);
    BOOST_TEST((n == 0 || errno == ECONNRESET));
}

Bytes framed(const Bytes& frame) {
    Bytes out;
    base::appendFrame(out, frame);
    return out;
}

BOOST_AUTO_TEST_SUITE(relay)

BOOST_AUTO_TEST_CASE(frames_pass_both_ways_and_are_counted) {
    World world;
    const UniqueFd host = world.connect();
    world.leave(numbered(60));
    world.leave(numbered(1514));
    BOOST_TEST((receive(host, 64) == framed(numbered(60))));
    BOOST_TEST((receive(host, 1518) == framed(numbered(1514))));
    Bytes both = framed(numbered(42));
    base::appendFrame(both, numbered(43));
    sendAll(host, both);
    BOOST_TEST((world.arrived() == numbered(42)));
    BOOST_TEST((world.arrived() == numbered(43)));
    until([&] { return world.relay->counts().packets_received == 2; });
    const PacketCounts counts = world.relay->counts();
    BOOST_TEST(counts.packets_sent == 2U);
    BOOST_TEST(counts.bytes_sent == 1574U);
    BOOST_TEST(counts.bytes_received == 85U);
    BOOST_TEST(counts.send_errors + counts.receive_errors == 0U);
}

BOOST_AUTO_TEST_CASE(frames_before_the_first_connection_wait_for_it) {
    World world;
    world.leave(numbered(60));
    const UniqueFd host = world.connect();
    BOOST_TEST((receive(host, 64) == framed(numbered(60))));
    BOOST_TEST(world.connections.load() == 1);
}

BOOST_AUTO_TEST_CASE(a_bad_length_ends_the_connection_and_not_the_network) {
    World world;
    for (const Bytes& length : {Bytes{0, 0, 0, 0}, Bytes{0, 1, 0, 1}, Bytes{255, 255, 255, 255}}) {
        const UniqueFd host = world.connect();
        Bytes stream = framed(numbered(50));
        stream.insert(stream.end(), length.begin(), length.end());
        sendAll(host, stream);
        BOOST_TEST((world.arrived() == numbered(50)));
        expectEnd(host);
    }
    BOOST_TEST(world.relay->counts().receive_errors == 3U);
    const UniqueFd host = world.connect();
    sendAll(host, framed(numbered(51)));
    BOOST_TEST((world.arrived() == numbered(51)));
}

BOOST_AUTO_TEST_CASE(offload_headers_make_room_for_themselves) {
    for (const VnetHeader vnet_header : {VnetHeader::kNo, VnetHeader::kYes}) {
        World world(vnet_header);
        const bool yes = vnet_header == VnetHeader::kYes;
        const size_t longest = yes ? base::kMaxVnetFrame : base::kMaxFrame;
        const UniqueFd host = world.connect();
        sendAll(host, framed(numbered(longest)));
        BOOST_TEST((world.arrived() == numbered(longest)));
        world.leave(numbered(longest));
        BOOST_TEST((receive(host, longest + 4) == framed(numbered(longest))));
        if (!yes) {
            // Longer than the wire allows: not cut, but dropped.
            world.leave(numbered(longest + 4));
            world.leave(numbered(60));
            BOOST_TEST((receive(host, 64) == framed(numbered(60))));
            BOOST_TEST(world.relay->counts().send_errors == 1U);
        }
    }
}

BOOST_AUTO_TEST_CASE(a_new_connection_takes_over_from_a_half_sent_frame) {
    World world;
    const UniqueFd first = world.connect();
    sendAll(first, Bytes{0, 0, 0, 9, 1, 2});
    until([&] { return world.connections == 1; });
    const UniqueFd second = world.connect();
    expectEnd(first);
    sendAll(second, framed(numbered(33)));
    BOOST_TEST((world.arrived() == numbered(33)));
    world.leave(numbered(61));
    BOOST_TEST((receive(second, 65) == framed(numbered(61))));
}

BOOST_AUTO_TEST_CASE(a_host_that_does_not_read_holds_up_its_own_direction_only) {
    World world;
    const UniqueFd host = world.connect();
    // Until everything between here and there is full.
    const Bytes frame = numbered(8192);
    size_t sent = 0;
    while (true) {
        pollfd entry{world.device.get(), POLLOUT, 0};
        if (::poll(&entry, 1, 300) == 0) break;
        world.leave(frame);
        ++sent;
    }
    BOOST_TEST(sent > 10U);
    sendAll(host, framed(numbered(34)));
    BOOST_TEST((world.arrived() == numbered(34)));
    // All of it is there in the end, whole and in order.
    for (size_t i = 0; i < sent; ++i) BOOST_TEST((receive(host, 8196) == framed(frame)));
}

BOOST_AUTO_TEST_CASE(the_end_comes_at_once_whatever_is_under_way) {
    const size_t before = base::openFdCount();
    {
        World world;
        const UniqueFd host = world.connect();
        for (int i = 0; i < 5; ++i) world.leave(numbered(1000));
        sendAll(host, Bytes{0, 0, 0, 9, 1});
        world.relay.reset();
        expectEnd(world.device);
        BOOST_TEST(!world.transport->dial(kPort, milliseconds(100)).has_value());
    }
    BOOST_TEST(base::openFdCount() == before);
}

BOOST_AUTO_TEST_CASE(a_device_that_is_gone_ends_the_connection_and_the_listening) {
    World world;
    const UniqueFd host = world.connect();
    until([&] { return world.connections == 1; });
    world.device.reset();
    expectEnd(host);
    until([&] { return !world.transport->dial(kPort, milliseconds(100)).has_value(); });
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::tap_forwarder
