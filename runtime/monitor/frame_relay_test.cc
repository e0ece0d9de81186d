// Frames between an interface and a stream, in network namespaces of the test's own.
#include "runtime/monitor/frame_relay.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <future>
#include <optional>
#include <vector>

#include "base/frame_stream.h"
#include "base/namespaces_test.h"
#include "base/socket.h"
#include "runtime/monitor/packet_socket.h"
#include "runtime/monitor/vnet_header.h"

namespace arca::runtime {
namespace {

using base::Claims;
using base::inNamespaces;
using base::UniqueFd;

constexpr std::chrono::seconds kPatience{10};

int ip(const std::string& arguments) {
    return ::system(("ip " + arguments + " >/dev/null 2>&1").c_str());
}

// eth0, which a guest is to have, with its other end at the same place: 192.0.2.2 speaks from
// there.
struct World {
    World() {
        (void)ip("link add eth0 address 02:00:00:00:00:01 type veth peer name eth1");
        for (const char* end : {"eth0", "eth1"}) {
            const std::string settings = std::string("/proc/sys/net/ipv6/conf/") + end;
            (void)base::writeControlFile(AT_FDCWD, settings + "/disable_ipv6", "1");
            (void)ip(std::string("link set up dev ") + end);
        }
        (void)ip("addr add 192.0.2.2/24 dev eth1");
        (void)ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth1 nud permanent");
    }

    // Starts the relay; gives the guest's end.
    UniqueFd start(Claims& claims, bool vnet_header) {
        auto opened = openPacketSocket(::if_nametoindex("eth0"));
        claims.works(opened, "open eth0");
        auto pair = base::socketPair(SOCK_STREAM);
        if (!opened || !pair) return UniqueFd();
        packets = std::move(*opened);
        auto started = FrameRelay::start(packets.fd.get(), std::move(pair->first), vnet_header,
                                         [this](const std::string& why) { ended.set_value(why); });
        claims.works(started, "start");
        if (started) relay = std::move(*started);
        return std::move(pair->second);
    }

    std::string whyEnded() {
        auto why = ended.get_future();
        return why.wait_for(kPatience) == std::future_status::ready ? why.get()
                                                                    : "it has not ended";
    }

    PacketSocket packets;
    std::promise<std::string> ended;
    std::unique_ptr<FrameRelay> relay;
};

// A datagram of `size` bytes from 192.0.2.2 to the guest.
void send(size_t size) {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(7);
    (void)::inet_pton(AF_INET, "192.0.2.1", &to.sin_addr);
    const std::vector<char> data(size, 'x');
    (void)::sendto(socket.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&to),
                   sizeof to);
}

// The next frame of the stream with that many bytes of payload behind Ethernet, IPv4 and UDP.
std::vector<uint8_t> receive(int stream, size_t header, size_t payload) {
    base::FrameReader reader(base::kMaxVnetFrame);
    const size_t wanted = header + 14 + 20 + 8 + payload;
    while (true) {
        auto frame = reader.next();
        if (!frame) return {};
        if (frame->size() == wanted) return {frame->begin(), frame->end()};
        if (!frame->empty()) continue;
        pollfd entry{stream, POLLIN, 0};
        if (::poll(&entry, 1, 10'000) != 1) return {};
        const auto space = reader.space();
        const ssize_t n = ::read(stream, space.data(), space.size());
        if (n <= 0) return {};
        reader.added(static_cast<size_t>(n));
    }
}

bool checksumHolds(std::span<const uint8_t> frame) {
    const auto udp = frame.subspan(14 + 20);
    uint32_t sum = IPPROTO_UDP + static_cast<uint32_t>(udp.size());
    const auto add = [&](std::span<const uint8_t> bytes) {
        for (size_t i = 0; i < bytes.size(); i += 2) {
            const uint32_t low = i + 1 < bytes.size() ? bytes[i + 1] : 0;
            sum += static_cast<uint32_t>(bytes[i]) << 8U | low;
        }
    };
    add(frame.subspan(14 + 12, 8));
    add(udp);
    while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
    return sum == 0xffff;
}

void toGuest(Claims& claims) {
    {
        World world;
        const UniqueFd guest = world.start(claims, true);
        send(100);
        const auto frame = receive(guest.get(), sizeof(VnetHeader), 100);
        claims.check(!frame.empty(), "a datagram arrives");
        claims.check(frame.size() > 1 && frame[0] == VnetHeader::kNeedsChecksum,
                     "its header says that the checksum is left to do");
        for (size_t i = 0; i < 100; ++i) send(1000 + i % 7);
        send(333);
        claims.check(!receive(guest.get(), sizeof(VnetHeader), 333).empty(), "many arrive");
    }
    (void)ip("link del eth0");
    World world;
    const UniqueFd guest = world.start(claims, false);
    for (const size_t size : {100, 101}) {
        send(size);
        const auto frame = receive(guest.get(), 0, size);
        claims.check(!frame.empty() && checksumHolds(frame), "the checksum is done here");
    }
}

// What a guest at 192.0.2.1 sends as a datagram to port 7 of 192.0.2.2, without a checksum.
std::vector<uint8_t> frameOf(size_t payload) {
    std::vector<uint8_t> frame{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0,  0,  0, 1, 8,   0,
                               0x45, 0,    0,    0,    0,    0,    0, 0, 64, 17, 0, 0, 192, 0,
                               2,    1,    192,  0,    2,    2,    0, 9, 0,  7,  0, 0, 0,   0};
    const auto put = [&](size_t at, size_t number) {
        frame[at] = static_cast<uint8_t>(number >> 8U);
        frame[at + 1] = static_cast<uint8_t>(number & 0xffU);
    };
    put(16, 20 + 8 + payload);
    put(38, 8 + payload);
    uint32_t sum = 0;
    for (size_t i = 14; i < 34; i += 2) sum += static_cast<uint32_t>(frame[i]) << 8U | frame[i + 1];
    while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
    put(24, ~sum & 0xffffU);
    frame.resize(frame.size() + payload, 'y');
    return frame;
}

void fromGuest(Claims& claims) {
    for (const bool vnet_header : {false, true}) {
        (void)ip("link del eth0");
        World world;
        const UniqueFd listener(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(7);
        (void)::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
        const UniqueFd guest = world.start(claims, vnet_header);
        std::vector<uint8_t> stream;
        const std::vector<uint8_t> header(vnet_header ? sizeof(VnetHeader) : 0, 0);
        const auto add = [&](std::vector<uint8_t> frame) {
            frame.insert(frame.begin(), header.begin(), header.end());
            base::appendFrame(stream, frame);
        };
        for (size_t i = 0; i < 70; ++i) add(frameOf(i));
        add({1, 2, 3});                          // no frame: lost, and nothing else
        add(std::vector<uint8_t>(60'000, 'z'));  // longer than the interface takes
        add(frameOf(500));
        // In pieces that end anywhere.
        for (size_t at = 0; at < stream.size(); at += 777) {
            const size_t size = std::min<size_t>(777, stream.size() - at);
            (void)!::write(guest.get(), stream.data() + at, size);
        }
        size_t next = 0;
        std::array<char, 2048> data{};
        ssize_t n = 0;
        while (n != 500) {
            pollfd entry{listener.get(), POLLIN, 0};
            if (::poll(&entry, 1, 10'000) != 1) break;
            n = ::recv(listener.get(), data.data(), data.size(), 0);
            if (n == static_cast<ssize_t>(next)) ++next;
        }
        claims.check(next == 70 && n == 500, "all arrive in their order, and those after bad ones");
        const std::array<uint8_t, 4> huge{0xff, 0xff, 0xff, 0xff};
        (void)!::write(guest.get(), huge.data(), huge.size());
        claims.check(world.whyEnded().find("4294967295") != std::string::npos,
                     "a length that cannot be ends it, and is named");
    }
}

void ends(Claims& claims) {
    {
        World world;
        UniqueFd guest = world.start(claims, true);
        guest.reset();
        claims.check(world.whyEnded().find("closed") != std::string::npos, "with the stream");
    }
    (void)ip("link del eth0");
    {
        World world;
        const UniqueFd guest = world.start(claims, true);
        (void)ip("link set eth0 down");
        (void)ip("link set eth0 up");
        (void)ip("neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth1 nud permanent");
        send(222);
        claims.check(!receive(guest.get(), sizeof(VnetHeader), 222).empty(),
                     "not with an interface that is down for a while");
        (void)ip("link del eth0");
        std::vector<uint8_t> stream;
        std::vector<uint8_t> frame = frameOf(5);
        frame.insert(frame.begin(), sizeof(VnetHeader), 0);
        base::appendFrame(stream, frame);
        // It may have ended already, of what the kernel says of the interface.
        (void)::send(guest.get(), stream.data(), stream.size(), MSG_NOSIGNAL);
        claims.check(world.whyEnded().find("removed") != std::string::npos,
                     "with the next frame for an interface that is gone");
    }
    World world;
    const UniqueFd guest = world.start(claims, true);
    // Nobody reads: the relay is stuck in a write, and still ends.
    for (int i = 0; i < 2000; ++i) send(1400);
    world.relay.reset();
    claims.check(::read(guest.get(), nullptr, 0) == 0, "by its owner");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(frame_relay)

#define ARCA_RELAY_CASE(name, body)                    \
    BOOST_AUTO_TEST_CASE(name) {                       \
        if (!base::isRoot()) {                         \
            BOOST_TEST_MESSAGE("skipped: needs root"); \
            return;                                    \
        }                                              \
        BOOST_TEST(inNamespaces(body) == "");          \
    }
ARCA_RELAY_CASE(frames_of_an_interface_reach_the_stream, toGuest)
ARCA_RELAY_CASE(frames_of_the_stream_reach_the_interface, fromGuest)
ARCA_RELAY_CASE(it_ends_with_either_side_and_by_its_owner, ends)

BOOST_AUTO_TEST_CASE(a_checksum_outside_the_frame_is_refused) {
    std::array<char, 60> frame{};
    VnetHeader header{};
    BOOST_TEST(completeChecksum(header, frame));
    header.flags = VnetHeader::kNeedsChecksum;
    header.checksum_start = 34;
    header.checksum_offset = 6;
    BOOST_TEST(completeChecksum(header, frame));
    header.checksum_offset = 25;
    BOOST_TEST(!completeChecksum(header, frame));
    header.checksum_start = 0xffff;
    header.checksum_offset = 0xffff;
    BOOST_TEST(!completeChecksum(header, frame));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::runtime
