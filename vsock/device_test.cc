#include "vsock/device.h"

#include <sys/eventfd.h>

#include <string>

#include "vsock/fake_guest.h"
#include "vsock/test_tools.h"

using namespace arca::vsock;
using namespace arca::vsock::testing;
using arca::base::UniqueFd;

namespace {

constexpr uint32_t kService = 5000;   // a port of the host
constexpr uint32_t kGuestPort = 900;  // of the guest

UniqueFd makeEvent() {
    UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    BOOST_TEST_REQUIRE(fd.valid());
    return fd;
}

// A device with a guest whose driver has just started.
struct Bench {
    explicit Bench(size_t max_streams = 1024, EventIndex event_index = EventIndex::kOff)
        : loop(makeLoop()), device(*loop, dialer, {FakeGuest::kCid, max_streams}) {
        device.setEventIndex(event_index);
        BOOST_TEST_REQUIRE(bool(device.setMemory(guest.table())));
        start();
    }
    void start(uint32_t base = 0) {
        int index = 0;
        for (FakeRing* ring : {&guest.to_guest, &guest.from_guest}) {
            DeviceQueue& queue = device.queue(static_cast<size_t>(index));
            UniqueFd call = makeEvent();
            UniqueFd error = makeEvent();
            calls[index] = UniqueFd(::fcntl(call.get(), F_DUPFD_CLOEXEC, 0));
            errors[index] = UniqueFd(::fcntl(error.get(), F_DUPFD_CLOEXEC, 0));
            queue.setInterrupt(std::move(call));
            queue.setError(std::move(error));
            BOOST_TEST_REQUIRE(bool(queue.setSize(ring->size)));
            BOOST_TEST_REQUIRE(bool(queue.setAddresses(FakeGuest::addresses(*ring))));
            BOOST_TEST_REQUIRE(bool(queue.setBase(base)));
            BOOST_TEST_REQUIRE(bool(device.startQueue(static_cast<size_t>(index), makeEvent())));
            device.enableQueue(static_cast<size_t>(index), true);
            ++index;
        }
    }
    // Everything there is to do, as the program's loop does it.
    void run() {
        for (int i = 0; i < 100; ++i) {
            BOOST_TEST_REQUIRE(bool(loop->turn(EventLoop::Wait::kNot)));
            if (!device.work() && i > 2) return;
        }
        BOOST_FAIL("the device never comes to rest");
    }
    bool interrupted(int queue) {
        uint64_t count = 0;
        return ::read(calls[queue].get(), &count, sizeof count) == sizeof count;
    }
    bool failed(int queue) {
        uint64_t count = 0;
        return ::read(errors[queue].get(), &count, sizeof count) == sizeof count;
    }
    std::vector<Packet> receive() {
        run();
        return guest.receive();
    }
    Packet receiveOne() {
        std::vector<Packet> packets = receive();
        BOOST_TEST_REQUIRE(packets.size() == 1U);
        return packets.front();
    }
    void request(uint32_t guest_port = kGuestPort, uint32_t host_port = kService) {
        guest.send(FakeGuest::header(Op::kRequest, guest_port, host_port));
    }
    // A stream that the guest opened.
    void open(uint32_t guest_port = kGuestPort, uint32_t host_port = kService) {
        guest.postBuffer();
        request(guest_port, host_port);
        BOOST_TEST_REQUIRE((receiveOne().header.op == Op::kResponse));
    }

    std::unique_ptr<EventLoop> loop;
    FakeDialer dialer;
    FakeGuest guest;
    Device device;
    UniqueFd calls[2];
    UniqueFd errors[2];
};

bool isReset(const Packet& packet) {
    return packet.header.op == Op::kReset && packet.header.source_cid == kHostCid &&
           packet.header.target_cid == FakeGuest::kCid;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(device)

BOOST_AUTO_TEST_CASE(the_guest_reaches_a_service_of_the_host) {
    Bench bench;
    bench.guest.postBuffers(4);
    bench.request();
    const Packet answer = bench.receiveOne();
    BOOST_TEST((answer.header.op == Op::kResponse));
    BOOST_TEST(answer.header.source_cid == kHostCid);
    BOOST_TEST(answer.header.target_cid == FakeGuest::kCid);
    BOOST_TEST(answer.header.source_port == kService);
    BOOST_TEST(answer.header.target_port == kGuestPort);
    BOOST_TEST(answer.header.buffer_space == Device::kMostSpace);
    BOOST_TEST(bench.interrupted(0));
    BOOST_TEST(bench.interrupted(1));

    bench.guest.sendData(kGuestPort, kService, "ping");
    bench.run();
    BOOST_TEST(readNow(bench.dialer.service(kService)) == "ping");
    BOOST_TEST(writeNow(bench.dialer.service(kService), "pong") == 4U);
    const Packet data = bench.receiveOne();
    BOOST_TEST((data.header.op == Op::kData));
    BOOST_TEST(data.payload == "pong");
    BOOST_TEST(data.header.length == 4U);
    BOOST_TEST(data.header.forwarded_bytes == 4U);
    BOOST_TEST(bench.guest.takeUsed(bench.guest.from_guest)->second == 0U);
}

BOOST_AUTO_TEST_CASE(the_host_reaches_a_port_of_the_guest) {
    Bench bench;
    bench.guest.postBuffers(4);
    auto [ours, client] = makePair();
    const bool accepted = bool(bench.device.connect(std::move(ours), kGuestPort));
    BOOST_TEST(accepted);
    const Packet request = bench.receiveOne();
    BOOST_TEST((request.header.op == Op::kRequest));
    BOOST_TEST(request.header.target_port == kGuestPort);
    const uint32_t port = request.header.source_port;
    BOOST_TEST(readNow(client).empty());
    bench.guest.send(FakeGuest::header(Op::kResponse, kGuestPort, port));
    bench.run();
    BOOST_TEST(readNow(client) == "OK " + std::to_string(port) + "\n");
    // A second one gets another number.
    auto [more, second] = makePair();
    const bool accepted_too = bool(bench.device.connect(std::move(more), kGuestPort));
    BOOST_TEST(accepted_too);
    BOOST_TEST(bench.receiveOne().header.source_port != port);
}

BOOST_AUTO_TEST_CASE(what_nobody_serves_is_reset) {
    Bench bench;
    bench.guest.postBuffers(4);
    bench.dialer.served = false;
    bench.request();
    const Packet answer = bench.receiveOne();
    BOOST_TEST(isReset(answer));
    BOOST_TEST(answer.header.source_port == kService);
    BOOST_TEST(answer.header.target_port == kGuestPort);
    BOOST_TEST(bench.device.streamCount() == 0U);
}

BOOST_AUTO_TEST_CASE(packets_that_belong_nowhere) {
    Bench bench;
    bench.guest.postBuffers(8);
    bench.dialer.served = false;
    // Another type of socket, and another machine: refused in their own terms.
    PacketHeader header = FakeGuest::header(Op::kRequest, kGuestPort, kService);
    header.type = 2;
    bench.guest.send(header);
    const Packet seqpacket = bench.receiveOne();
    BOOST_TEST(isReset(seqpacket));
    BOOST_TEST(seqpacket.header.type == 2);
    header = FakeGuest::header(Op::kRequest, kGuestPort, kService);
    header.target_cid = 7;
    bench.guest.send(header);
    BOOST_TEST(bench.receiveOne().header.source_cid == 7U);
    // Data for no stream, and a number without a meaning.
    bench.guest.sendData(kGuestPort, kService, "lost");
    BOOST_TEST(isReset(bench.receiveOne()));
    header = FakeGuest::header(static_cast<Op>(99), kGuestPort, kService);
    bench.guest.send(header);
    BOOST_TEST(isReset(bench.receiveOne()));
    // A reset is never answered, nor is who lies about its address.
    bench.guest.send(FakeGuest::header(Op::kReset, kGuestPort, kService));
    header = FakeGuest::header(Op::kRequest, kGuestPort, kService);
    header.source_cid = 4;
    bench.guest.send(header);
    BOOST_TEST(bench.receive().empty());
    BOOST_TEST(bench.dialer.dials == 0);
    // Too short for a header.
    bench.guest.writeDescriptor(bench.guest.from_guest, 0, FakeGuest::kGuestBase, 43, 0, 0);
    bench.guest.offer(bench.guest.from_guest, 0);
    BOOST_TEST(bench.receive().empty());
    BOOST_TEST(!bench.failed(1));
    BOOST_TEST(bench.device.streamCount() == 0U);
}

BOOST_AUTO_TEST_CASE(violations_reset_the_stream_alone) {
    Bench bench;
    bench.open();
    bench.open(kGuestPort + 1);
    bench.guest.postBuffers(4);
    bench.request();  // again
    BOOST_TEST(isReset(bench.receiveOne()));
    BOOST_TEST(atEnd(bench.dialer.services[kService][0]));
    BOOST_TEST(bench.device.streamCount() == 1U);
    // A length that is more than the buffers hold.
    PacketHeader header = FakeGuest::header(Op::kData, kGuestPort + 1, kService);
    header.length = 5;
    bench.guest.send(header, "four");
    BOOST_TEST(isReset(bench.receiveOne()));
    BOOST_TEST(readNow(bench.dialer.service(kService)).empty());
    BOOST_TEST(bench.device.streamCount() == 0U);
}

BOOST_AUTO_TEST_CASE(bytes_behind_the_length_are_ignored) {
    Bench bench;
    bench.open();
    PacketHeader header = FakeGuest::header(Op::kData, kGuestPort, kService);
    header.length = 2;
    bench.guest.send(header, "four");
    bench.run();
    BOOST_TEST(readNow(bench.dialer.service(kService)) == "fo");
}

BOOST_AUTO_TEST_CASE(a_long_transfer_fills_many_buffers_at_once) {
    Bench bench;
    bench.open();
    std::string sent;
    std::string got;
    bench.guest.postBuffers(8);
    for (int round = 0; round < 50; ++round) {
        const std::string block(20000, static_cast<char>('a' + round % 26));
        BOOST_TEST_REQUIRE(writeNow(bench.dialer.service(kService), block) == block.size());
        sent += block;
        while (got.size() < sent.size()) {
            const std::vector<Packet> packets = bench.receive();
            BOOST_TEST_REQUIRE(!packets.empty());
            for (const Packet& packet : packets) {
                BOOST_TEST_REQUIRE((packet.header.op == Op::kData));
                BOOST_TEST_REQUIRE(packet.header.length == packet.payload.size());
                got += packet.payload;
            }
            bench.guest.postBuffers(static_cast<int>(packets.size()));
            PacketHeader update = FakeGuest::header(Op::kCreditUpdate, kGuestPort, kService);
            update.forwarded_bytes = static_cast<uint32_t>(got.size());
            bench.guest.send(update);
        }
    }
    BOOST_TEST((got == sent));
}

BOOST_AUTO_TEST_CASE(never_more_than_the_guest_has_room_for) {
    Bench bench;
    bench.open();
    bench.guest.postBuffers(8);
    PacketHeader update = FakeGuest::header(Op::kCreditUpdate, kGuestPort, kService);
    update.buffer_space = 5000;
    bench.guest.send(update);
    bench.run();
    BOOST_TEST(writeNow(bench.dialer.service(kService), std::string(9000, 'x')) == 9000U);
    size_t bytes = 0;
    int asked = 0;
    for (const Packet& packet : bench.receive()) {
        if (packet.header.op == Op::kData) bytes += packet.payload.size();
        if (packet.header.op == Op::kCreditRequest) ++asked;
    }
    BOOST_TEST(bytes == 5000U);
    BOOST_TEST(asked == 1);
    update.forwarded_bytes = 5000;
    bench.guest.send(update);
    bytes = 0;
    for (const Packet& packet : bench.receive()) bytes += packet.payload.size();
    BOOST_TEST(bytes == 4000U);
}

BOOST_AUTO_TEST_CASE(without_buffers_it_waits_and_asks_for_a_kick) {
    Bench bench;
    bench.open();
    BOOST_TEST(writeNow(bench.dialer.service(kService), "waits") == 5U);
    BOOST_TEST(bench.receive().empty());
    BOOST_TEST(!bench.guest.noNotify(bench.guest.to_guest));
    bench.guest.postBuffer();
    BOOST_TEST(bench.receiveOne().payload == "waits");
    bench.guest.postBuffer();
    bench.run();
    BOOST_TEST(bench.guest.noNotify(bench.guest.to_guest));  // nothing waits: no kicks wanted
}

BOOST_AUTO_TEST_CASE(streams_take_turns) {
    Bench bench;
    for (uint32_t i = 0; i < 3; ++i) bench.open(kGuestPort + i, kService + i);
    for (uint32_t i = 0; i < 3; ++i) {
        BOOST_TEST(writeNow(bench.dialer.service(kService + i), std::string(60000, 'x')) == 60000U);
    }
    std::map<uint32_t, size_t> bytes;
    for (int round = 0; round < 6; ++round) {
        bench.guest.postBuffers(2, 8000);
        for (const Packet& packet : bench.receive()) {
            bytes[packet.header.source_port] += packet.payload.size();
        }
    }
    for (uint32_t i = 0; i < 3; ++i) BOOST_TEST(bytes[kService + i] == 32000U);
}

BOOST_AUTO_TEST_CASE(a_host_that_does_not_read_stalls_only_its_own_stream) {
    Bench bench;
    bench.open(kGuestPort, kService);
    bench.open(kGuestPort + 1, kService + 1);
    // As much as the credit allows goes to the one that does not read ...
    size_t sent = 0;
    (void)fill(bench.dialer.service(kService));
    while (sent < Device::kMostSpace) {
        bench.guest.sendData(kGuestPort, kService, std::string(16000, 's'));
        sent += 16000;
        bench.run();
        while (bench.guest.takeUsed(bench.guest.from_guest)) {
        }
    }
    // ... and the other one does not notice.
    bench.guest.sendData(kGuestPort + 1, kService + 1, "through");
    bench.run();
    BOOST_TEST(readNow(bench.dialer.service(kService + 1)) == "through");
}

BOOST_AUTO_TEST_CASE(closing_from_the_guests_side) {
    Bench bench;
    bench.open();
    bench.guest.postBuffers(2);
    bench.guest.sendData(kGuestPort, kService, "last");
    PacketHeader header = FakeGuest::header(Op::kShutdown, kGuestPort, kService);
    header.flags = kNoMoreAtAll;
    bench.guest.send(header);
    BOOST_TEST(isReset(bench.receiveOne()));
    BOOST_TEST(readNow(bench.dialer.service(kService)) == "last");
    BOOST_TEST(atEnd(bench.dialer.service(kService)));
    BOOST_TEST(bench.device.streamCount() == 0U);
}

BOOST_AUTO_TEST_CASE(closing_from_the_hosts_side) {
    Bench bench;
    bench.open();
    bench.guest.postBuffers(4);
    BOOST_TEST(writeNow(bench.dialer.service(kService), "last") == 4U);
    bench.dialer.service(kService).reset();
    const std::vector<Packet> packets = bench.receive();
    BOOST_TEST_REQUIRE(packets.size() == 3U);
    BOOST_TEST((packets[0].header.op == Op::kShutdown));
    BOOST_TEST(packets[0].header.flags == kNoMoreReceive);
    BOOST_TEST(packets[1].payload == "last");
    BOOST_TEST((packets[2].header.op == Op::kShutdown));
    BOOST_TEST(packets[2].header.flags == kNoMoreAtAll);
    BOOST_TEST(bench.device.streamCount() == 1U);
    bench.guest.send(FakeGuest::header(Op::kReset, kGuestPort, kService));
    BOOST_TEST(bench.receive().empty());
    BOOST_TEST(bench.device.streamCount() == 0U);
}

BOOST_AUTO_TEST_CASE(the_number_of_streams_is_bounded) {
    const size_t before = openDescriptors();
    {
        Bench bench(3);
        for (uint32_t i = 0; i < 3; ++i) bench.open(kGuestPort + i);
        bench.guest.postBuffer();
        bench.request(kGuestPort + 3);
        BOOST_TEST(isReset(bench.receiveOne()));
        auto [ours, client] = makePair();
        const bool accepted = bool(bench.device.connect(std::move(ours), 1));
        BOOST_TEST(!accepted);
        BOOST_TEST(atEnd(client));
        // One goes, another may come.
        bench.guest.send(FakeGuest::header(Op::kReset, kGuestPort, kService));
        bench.run();
        bench.open(kGuestPort + 3);
    }
    BOOST_TEST(openDescriptors() == before);
}

BOOST_AUTO_TEST_CASE(buffer_space_shrinks_when_there_are_many_streams) {
    Bench bench;
    uint64_t promised = 0;
    size_t streams = 0;
    uint32_t least = Device::kMostSpace;
    for (uint32_t i = 0; i < 300; ++i, ++streams) {
        bench.guest.postBuffer();
        bench.request(kGuestPort + i);
        const Packet answer = bench.receiveOne();
        promised += answer.header.buffer_space;
        least = std::min(least, answer.header.buffer_space);
    }
    BOOST_TEST(least == Device::kLeastSpace);
    BOOST_TEST(promised <= Device::kSharedSpace + streams * Device::kLeastSpace);
    // What a stream had, the next one can have.
    for (uint32_t i = 0; i < 300; ++i) {
        bench.guest.send(FakeGuest::header(Op::kReset, kGuestPort + i, kService));
        bench.run();
    }
    bench.guest.postBuffer();
    bench.request();
    BOOST_TEST(bench.receiveOne().header.buffer_space == Device::kMostSpace);
}

BOOST_AUTO_TEST_CASE(a_flood_of_strays_is_bounded) {
    Bench bench;
    for (uint32_t i = 0; i < 10000; ++i) {
        bench.guest.send(FakeGuest::header(Op::kCreditUpdate, i, kService));
        bench.run();
    }
    size_t resets = 0;
    while (true) {
        bench.guest.postBuffers(8);
        const std::vector<Packet> packets = bench.receive();
        if (packets.empty()) break;
        resets += packets.size();
    }
    BOOST_TEST(resets == 4096U);
}

BOOST_AUTO_TEST_CASE(a_broken_queue_ends_all_streams_until_the_driver_starts_anew) {
    for (const int broken : {0, 1}) {
        Bench bench;
        bench.open();
        FakeRing& ring = broken == 0 ? bench.guest.to_guest : bench.guest.from_guest;
        bench.guest.offer(ring, 0xffff);
        BOOST_TEST(writeNow(bench.dialer.service(kService), "x") == 1U);
        bench.run();
        BOOST_TEST(bench.failed(broken));
        BOOST_TEST(!bench.failed(1 - broken));
        BOOST_TEST(bench.device.streamCount() == 0U);
        BOOST_TEST(atEnd(bench.dialer.service(kService)));
        auto [ours, client] = makePair();
        const bool accepted = bool(bench.device.connect(std::move(ours), 1));
        BOOST_TEST(!accepted);
        // Its next driver is served.
        bench.device.stopQueue(0);
        bench.device.stopQueue(1);
        for (FakeRing* each : {&bench.guest.to_guest, &bench.guest.from_guest}) {
            each->next_available = each->next_descriptor = each->last_used = 0;
            bench.guest.put<uint16_t>(each->available + 2, 0);
            bench.guest.put<uint16_t>(each->used + 2, 0);
        }
        bench.start();
        bench.open();
    }
}

BOOST_AUTO_TEST_CASE(a_pause_keeps_streams_and_a_new_driver_does_not) {
    for (const bool paused : {true, false}) {
        Bench bench;
        bench.open();
        const uint16_t to_guest = bench.device.stopQueue(0);
        BOOST_TEST(to_guest == bench.device.stopQueue(1));  // one packet each
        auto [ours, client] = makePair();
        const bool accepted = bool(bench.device.connect(std::move(ours), 1));
        BOOST_TEST(!accepted);
        if (!paused) {
            for (FakeRing* each : {&bench.guest.to_guest, &bench.guest.from_guest}) {
                each->next_available = each->next_descriptor = each->last_used = 0;
                bench.guest.put<uint16_t>(each->available + 2, 0);
                bench.guest.put<uint16_t>(each->used + 2, 0);
            }
        }
        bench.start(paused ? to_guest : 0);
        bench.run();
        BOOST_TEST(bench.device.streamCount() == (paused ? 1U : 0U));
        BOOST_TEST(atEnd(bench.dialer.service(kService)) == !paused);
    }
}

BOOST_AUTO_TEST_CASE(the_last_packets_are_taken_when_the_queue_stops) {
    for (const bool vanished : {true, false}) {
        Bench bench;
        bench.open();
        bench.guest.sendData(kGuestPort, kService, "last words");
        if (vanished) {
            bench.device.detach();
        } else {
            bench.device.enableQueue(1, false);
            BOOST_TEST(bench.device.stopQueue(1) == 2);
        }
        BOOST_TEST(readNow(bench.dialer.service(kService)) == "last words");
    }
}

BOOST_AUTO_TEST_CASE(after_the_vmm_only_what_is_owed_to_the_host_remains) {
    Bench bench;
    bench.open(kGuestPort, kService);
    bench.open(kGuestPort + 1, kService + 1);
    (void)fill(bench.dialer.service(kService));
    std::string sent;
    for (int i = 0; i < 20; ++i) {
        bench.guest.sendData(kGuestPort, kService, std::string(12000, 's'));
        sent += std::string(12000, 's');
        bench.run();
        while (bench.guest.takeUsed(bench.guest.from_guest)) {
        }
    }
    bench.device.detach();
    bench.run();
    BOOST_TEST(atEnd(bench.dialer.service(kService + 1)));
    BOOST_TEST(!bench.device.idle());
    std::string got;
    for (int i = 0; i < 100 && !bench.device.idle(); ++i) {
        got += readNow(bench.dialer.service(kService));
        bench.run();
    }
    got += readNow(bench.dialer.service(kService));
    BOOST_TEST((got == sent));
    BOOST_TEST(bench.device.idle());
}

BOOST_AUTO_TEST_CASE(a_memory_table_without_the_rings_stops_the_device) {
    Bench bench;
    bench.open();
    FakeGuest other;
    BOOST_TEST(bool(bench.device.setMemory(bench.guest.table())));
    bench.guest.postBuffer();
    BOOST_TEST(writeNow(bench.dialer.service(kService), "x") == 1U);
    BOOST_TEST(bench.receiveOne().payload == "x");
    BOOST_TEST(!bench.device.setMemory(GuestMemory::over(other.memory(), 0, 0)));
    bench.run();
    auto [ours, client] = makePair();
    const bool accepted = bool(bench.device.connect(std::move(ours), 1));
    BOOST_TEST(!accepted);
}

BOOST_AUTO_TEST_CASE(event_indices_work_the_same) {
    Bench bench(1024, EventIndex::kOn);
    bench.open();
    bench.guest.postBuffers(2);
    bench.guest.sendData(kGuestPort, kService, "ping");
    BOOST_TEST(writeNow(bench.dialer.service(kService), "pong") == 4U);
    BOOST_TEST(bench.receiveOne().payload == "pong");
    BOOST_TEST(readNow(bench.dialer.service(kService)) == "ping");
}

BOOST_AUTO_TEST_SUITE_END()
