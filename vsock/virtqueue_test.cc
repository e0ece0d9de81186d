#include "vsock/virtqueue.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <functional>
#include <limits>
#include <string>

#include "vsock/fake_guest.h"

using namespace arca::vsock;
using arca::base::Code;
using arca::base::UniqueFd;
using testing::FakeGuest;
using testing::FakeRing;
using Direction = Virtqueue::Direction;
using Peek = Virtqueue::Peek;

namespace {

constexpr uint64_t kSomewhere = FakeGuest::kGuestBase + 0x20000;

struct Bench {
    explicit Bench(Direction direction = Direction::kDeviceReads, uint16_t size = 8,
                   EventIndex event_index = EventIndex::kOff, uint64_t least = 0)
        : guest(size), table(guest.table()), ring(direction, least) {
        BOOST_TEST_REQUIRE(
            bool(ring.start(table, size, FakeGuest::addresses(guest.from_guest), 0, event_index)));
    }
    // A chain of one descriptor, offered.
    void offerOne(uint16_t index = 0, uint64_t address = kSomewhere, uint32_t length = 100,
                  uint16_t flags = 0) {
        guest.writeDescriptor(guest.from_guest, index, address, length, flags, 0);
        guest.offer(guest.from_guest, index);
    }
    Peek peek(uint16_t ahead = 0) {
        parts.clear();
        return ring.peek(ahead, parts, chain);
    }

    FakeGuest guest;
    GuestMemory table;
    Virtqueue ring;
    std::vector<iovec> parts;
    Virtqueue::Chain chain;
};

struct Memfd {
    explicit Memfd(size_t bytes) : fd(::memfd_create("test", MFD_CLOEXEC)) {
        BOOST_TEST_REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
    }
    UniqueFd fd;
};

Code mapError(const std::vector<MemoryRegion>& regions, std::vector<UniqueFd> files) {
    const auto mapped = GuestMemory::map(regions, files);
    BOOST_TEST_REQUIRE(!mapped);
    return mapped.error().code();
}

std::vector<UniqueFd> filesOf(size_t count, size_t bytes) {
    std::vector<UniqueFd> files;
    for (size_t i = 0; i < count; ++i) files.push_back(std::move(Memfd(bytes).fd));
    return files;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(guest_memory)

BOOST_AUTO_TEST_CASE(mapped_regions_are_shared_with_the_file) {
    std::vector<UniqueFd> files = filesOf(2, 0x3000);
    const int first = files[0].get();
    const auto memory =
        GuestMemory::map(std::vector<MemoryRegion>{{0x1000, 0x2000, 0x70001000, 0x1000},
                                                   {0x8000, 0x1000, 0x90000000, 0}},
                         files);
    BOOST_TEST_REQUIRE(bool(memory));
    std::byte* const at = memory->fromUser(0x70001000, 0x2000);
    BOOST_TEST_REQUIRE(at != nullptr);
    at[5] = std::byte{'x'};
    char seen = 0;
    BOOST_TEST(::pread(first, &seen, 1, 0x1005) == 1);
    BOOST_TEST(seen == 'x');
    std::vector<iovec> parts;
    BOOST_TEST(memory->fromGuest(0x1005, 1, parts));
    BOOST_TEST(static_cast<std::byte*>(parts.at(0).iov_base) == at + 5);
}

BOOST_AUTO_TEST_CASE(impossible_tables_are_refused) {
    constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
    BOOST_TEST((mapError({}, {}) == Code::kInvalidArgument));
    BOOST_TEST((mapError({{0, 0x1000, 0, 0}}, {}) == Code::kInvalidArgument));
    const std::vector<MemoryRegion> wrong = {
        {0, 0, 0, 0},                       // empty
        {kMax - 10, 0x1000, 0, 0},          // wraps in the guest
        {0, 0x1000, kMax - 10, 0},          // wraps in the VMM
        {0, 0x1000, 0, kMax - 10},          // wraps in the file
        {0, 0x1000, 0, uint64_t{1} << 63},  // offset beyond any file
        {0, 0x3001, 0, 0},                  // ends behind the file
        {0, 0x1000, 0, 0x3000},             // begins behind the file
    };
    for (const MemoryRegion& region : wrong) {
        BOOST_TEST((mapError({region}, filesOf(1, 0x3000)) == Code::kInvalidArgument));
    }
    // Overlaps in either address space; more than eight.
    BOOST_TEST((mapError({{0, 0x2000, 0, 0}, {0x1fff, 0x1000, 0x10000, 0}}, filesOf(2, 0x3000)) ==
                Code::kInvalidArgument));
    BOOST_TEST((mapError({{0, 0x2000, 0, 0}, {0x9000, 0x1000, 0x1fff, 0}}, filesOf(2, 0x3000)) ==
                Code::kInvalidArgument));
    std::vector<MemoryRegion> many;
    for (uint64_t i = 0; i < 9; ++i) many.push_back({i << 20U, 0x1000, i << 20U, 0});
    BOOST_TEST((mapError(many, filesOf(9, 0x1000)) == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(what_is_no_file_with_a_size_is_refused) {
    std::array<int, 2> ends{};
    BOOST_TEST_REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const UniqueFd write_end(ends[1]);
    std::vector<UniqueFd> files;
    files.emplace_back(ends[0]);
    const Code code = mapError({{0, 0x1000, 0, 0}}, std::move(files));
    BOOST_TEST((code == Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(translation_stays_inside_and_crosses_adjacent_regions) {
    std::vector<UniqueFd> files = filesOf(2, 0x1000);
    const auto memory = GuestMemory::map(
        std::vector<MemoryRegion>{{0x1000, 0x1000, 0xa000, 0}, {0x2000, 0x1000, 0xf000, 0}}, files);
    BOOST_TEST_REQUIRE(bool(memory));
    constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
    struct Case {
        uint64_t address;
        uint64_t size;
        size_t parts;  // 0: refused
    };
    for (const Case& c : std::vector<Case>{{0x1000, 0x1000, 1},
                                           {0x1fff, 2, 2},
                                           {0x1000, 0x2000, 2},
                                           {0x1000, 0x2001, 0},
                                           {0xfff, 1, 0},
                                           {0x3000, 1, 0},
                                           {0x2fff, 2, 0},
                                           {kMax, 1, 0},
                                           {kMax - 1, kMax, 0},
                                           {0x1800, kMax, 0}}) {
        std::vector<iovec> parts(3);
        BOOST_TEST(memory->fromGuest(c.address, c.size, parts) == (c.parts != 0));
        BOOST_TEST(parts.size() == 3 + c.parts);
    }
    BOOST_TEST(memory->fromUser(0xa000, 0x1000) != nullptr);
    BOOST_TEST(memory->fromUser(0xa000, 0x1001) == nullptr);
    BOOST_TEST(memory->fromUser(0xafff, 2) == nullptr);
    BOOST_TEST(memory->fromUser(0x9fff, 1) == nullptr);
    BOOST_TEST(memory->fromUser(kMax, kMax) == nullptr);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(virtqueue)

BOOST_AUTO_TEST_CASE(a_ring_must_have_a_sane_size_and_place) {
    FakeGuest guest(8);
    const GuestMemory table = guest.table();
    const RingAddresses good = FakeGuest::addresses(guest.from_guest);
    const auto starts = [&](uint32_t size, const RingAddresses& addresses) {
        Virtqueue ring(Direction::kDeviceReads);
        return bool(ring.start(table, size, addresses, 0, EventIndex::kOff));
    };
    BOOST_TEST(starts(8, good));
    for (const uint32_t size : {0U, 3U, 7U, 65536U, 1U << 31U, 0xffffffffU}) {
        BOOST_TEST(!starts(size, good));
    }
    const uint64_t end = FakeGuest::kUserBase + guest.memory().size();
    for (const uint64_t bad : {uint64_t{0}, FakeGuest::kUserBase - 16, end, end - 16,
                               std::numeric_limits<uint64_t>::max() - 15}) {
        BOOST_TEST(!starts(8, {bad, good.available, good.used}));
        BOOST_TEST(!starts(8, {good.descriptors, bad, good.used}));
        BOOST_TEST(!starts(8, {good.descriptors, good.available, bad}));
    }
    BOOST_TEST(!starts(8, {good.descriptors + 8, good.available, good.used}));
    BOOST_TEST(!starts(8, {good.descriptors, good.available + 1, good.used}));
    BOOST_TEST(!starts(8, {good.descriptors, good.available, good.used + 2}));
    // Exactly up to the end is fine: 6 + 2 * 8 bytes of available ring.
    BOOST_TEST(starts(8, {good.descriptors, end - 22, good.used}));
    BOOST_TEST(!starts(8, {good.descriptors, end - 20, good.used}));
}

BOOST_AUTO_TEST_CASE(chains_come_in_order_and_go_back) {
    Bench bench;
    bench.guest.writeDescriptor(bench.guest.from_guest, 5, kSomewhere, 44, FakeGuest::kNext, 2);
    bench.guest.writeDescriptor(bench.guest.from_guest, 2, kSomewhere + 100, 1000, 0, 7);
    bench.guest.offer(bench.guest.from_guest, 5);
    bench.offerOne(3, kSomewhere + 5000, 60);

    BOOST_TEST((bench.peek(1) == Peek::kChain));
    BOOST_TEST(bench.chain.head == 3);
    BOOST_TEST((bench.peek(2) == Peek::kNone));
    BOOST_TEST((bench.peek() == Peek::kChain));
    BOOST_TEST(bench.chain.head == 5);
    BOOST_TEST(bench.chain.bytes == 1044U);
    BOOST_TEST(bench.parts.size() == 2U);

    bench.ring.complete(bench.chain, 7);
    BOOST_TEST(bench.guest.usedIndex(bench.guest.from_guest) == 0);  // not before publish()
    bench.ring.publish();
    BOOST_TEST((bench.guest.takeUsed(bench.guest.from_guest) ==
                std::optional(std::pair<uint32_t, uint32_t>(5, 7))));
    BOOST_TEST((bench.peek() == Peek::kChain));
    BOOST_TEST(bench.chain.head == 3);
}

BOOST_AUTO_TEST_CASE(indices_wrap_around) {
    Bench bench;
    for (int i = 0; i < 70000; ++i) {
        bench.offerOne(static_cast<uint16_t>(i % 8));
        BOOST_TEST_REQUIRE((bench.peek() == Peek::kChain));
        bench.ring.complete(bench.chain, static_cast<uint32_t>(i));
        bench.ring.publish();
        const auto used = bench.guest.takeUsed(bench.guest.from_guest);
        BOOST_TEST_REQUIRE((used && used->second == static_cast<uint32_t>(i)));
    }
    BOOST_TEST(bench.ring.nextAvailable() == static_cast<uint16_t>(70000 % 65536));
}

BOOST_AUTO_TEST_CASE(hostile_rings_break_and_stay_broken) {
    const uint64_t end = FakeGuest::kGuestBase + (size_t{1} << 20U);
    struct Case {
        const char* what;
        Direction direction;
        std::function<void(Bench&, FakeRing&)> spoil;
    };
    const Direction reads = Direction::kDeviceReads;
    const Direction writes = Direction::kDeviceWrites;
    const auto one = [](uint64_t address, uint32_t length, uint16_t flags, uint16_t next) {
        return [=](Bench& bench, FakeRing& ring) {
            bench.guest.writeDescriptor(ring, 0, address, length, flags, next);
            bench.guest.offer(ring, 0);
        };
    };
    const std::vector<Case> cases = {
        {"head out of range", reads,
         [](Bench& bench, FakeRing& ring) { bench.guest.offer(ring, 8); }},
        {"head far out of range", reads,
         [](Bench& bench, FakeRing& ring) { bench.guest.offer(ring, 0xffff); }},
        {"next out of range", reads, one(kSomewhere, 10, FakeGuest::kNext, 8)},
        {"points to itself", reads, one(kSomewhere, 10, FakeGuest::kNext, 0)},
        {"loop of all", reads,
         [](Bench& bench, FakeRing& ring) {
             for (uint16_t i = 0; i < 8; ++i) {
                 bench.guest.writeDescriptor(ring, i, kSomewhere, 10, FakeGuest::kNext,
                                             static_cast<uint16_t>((i + 1) % 8));
             }
             bench.guest.offer(ring, 3);
         }},
        {"indirect", reads, one(kSomewhere, 64, FakeGuest::kIndirect, 0)},
        {"writable where the device reads", reads, one(kSomewhere, 64, FakeGuest::kWrite, 0)},
        {"readable where the device writes", writes, one(kSomewhere, 64, 0, 0)},
        {"outside of memory", reads, one(0, 64, 0, 0)},
        {"one byte over the end", reads, one(end - 63, 64, 0, 0)},
        {"wraps", reads, one(std::numeric_limits<uint64_t>::max() - 3, 64, 0, 0)},
        {"four gigabytes", reads, one(kSomewhere, 0xffffffff, 0, 0)},
        {"more chains than places", reads,
         [](Bench& bench, FakeRing& ring) {
             ring.next_available = 8;
             bench.guest.offer(ring, 0);
         }},
        {"index that went back", reads,
         [](Bench& bench, FakeRing& ring) {
             bench.guest.put<uint16_t>(ring.available + 2, 0xffff);
         }},
    };
    for (const Case& c : cases) {
        BOOST_TEST_CONTEXT(c.what) {
            Bench bench(c.direction);
            c.spoil(bench, bench.guest.from_guest);
            bench.parts.assign(2, iovec{});
            BOOST_TEST((bench.ring.peek(0, bench.parts, bench.chain) == Peek::kBroken));
            BOOST_TEST(bench.parts.size() == 2U);
            BOOST_TEST(!bench.ring.defect().empty());
            BOOST_TEST(!bench.ring.ready());
            bench.guest.put<uint16_t>(bench.guest.from_guest.available + 2, 0);
            BOOST_TEST((bench.peek() == Peek::kBroken));
            BOOST_TEST(bench.guest.usedIndex(bench.guest.from_guest) == 0);
        }
    }
}

BOOST_AUTO_TEST_CASE(long_chains_are_cut_off_at_the_bound) {
    for (const size_t length : {Virtqueue::kMaxChain, Virtqueue::kMaxChain + 1}) {
        Bench bench(Direction::kDeviceReads, 256);
        for (size_t i = 0; i < length; ++i) {
            bench.guest.writeDescriptor(
                bench.guest.from_guest, static_cast<uint16_t>(i), kSomewhere, 1,
                i + 1 < length ? FakeGuest::kNext : uint16_t{0}, static_cast<uint16_t>(i + 1));
        }
        bench.guest.offer(bench.guest.from_guest, 0);
        BOOST_TEST(
            (bench.peek() == (length > Virtqueue::kMaxChain ? Peek::kBroken : Peek::kChain)));
    }
}

BOOST_AUTO_TEST_CASE(buffers_below_the_least_break_it) {
    for (const uint32_t bytes : {44U, 45U}) {
        Bench bench(Direction::kDeviceWrites, 8, EventIndex::kOff, 45);
        bench.offerOne(0, kSomewhere, bytes, FakeGuest::kWrite);
        BOOST_TEST((bench.peek() == (bytes < 45 ? Peek::kBroken : Peek::kChain)));
    }
}

BOOST_AUTO_TEST_CASE(empty_descriptors_are_allowed) {
    Bench bench;
    bench.guest.writeDescriptor(bench.guest.from_guest, 0, 0, 0, FakeGuest::kNext, 1);
    bench.guest.writeDescriptor(bench.guest.from_guest, 1, kSomewhere, 5, 0, 0);
    bench.guest.offer(bench.guest.from_guest, 0);
    BOOST_TEST((bench.peek() == Peek::kChain));
    BOOST_TEST(bench.parts.size() == 1U);
    BOOST_TEST(bench.chain.bytes == 5U);
}

BOOST_AUTO_TEST_CASE(interrupts_follow_the_drivers_flag) {
    Bench bench;
    const size_t flags = bench.guest.from_guest.available;
    BOOST_TEST(!bench.ring.wantsInterrupt());  // nothing was published
    for (const bool wanted : {true, false, true}) {
        bench.guest.put<uint16_t>(flags, wanted ? 0 : 1);
        bench.offerOne();
        BOOST_TEST_REQUIRE((bench.peek() == Peek::kChain));
        bench.ring.complete(bench.chain, 0);
        bench.ring.publish();
        BOOST_TEST(bench.ring.wantsInterrupt() == wanted);
        BOOST_TEST(!bench.ring.wantsInterrupt());  // once for each publication
    }
}

BOOST_AUTO_TEST_CASE(interrupts_follow_the_event_index) {
    Bench bench(Direction::kDeviceReads, 8, EventIndex::kOn);
    const size_t wish = bench.guest.from_guest.available + 4 + 2UL * 8;
    const auto complete_one = [&] {
        bench.offerOne();
        BOOST_TEST_REQUIRE((bench.peek() == Peek::kChain));
        bench.ring.complete(bench.chain, 0);
        bench.ring.publish();
    };
    bench.guest.put<uint16_t>(wish, 2);  // "when the third has been used"
    complete_one();
    BOOST_TEST(!bench.ring.wantsInterrupt());
    complete_one();
    BOOST_TEST(!bench.ring.wantsInterrupt());
    complete_one();
    BOOST_TEST(bench.ring.wantsInterrupt());
    complete_one();
    BOOST_TEST(!bench.ring.wantsInterrupt());
    bench.guest.put<uint16_t>(wish, 5);  // passed by a step of several
    complete_one();
    complete_one();
    complete_one();
    BOOST_TEST(bench.ring.wantsInterrupt());
}

BOOST_AUTO_TEST_CASE(arming_kicks_finds_what_came_before) {
    for (const EventIndex event_index : {EventIndex::kOff, EventIndex::kOn}) {
        Bench bench(Direction::kDeviceReads, 8, event_index);
        const FakeRing& ring = bench.guest.from_guest;
        bench.ring.suppressKicks();
        BOOST_TEST(bench.guest.noNotify(ring) == (event_index == EventIndex::kOff));
        bench.offerOne();
        BOOST_TEST(bench.ring.armKicks());
        BOOST_TEST_REQUIRE((bench.peek() == Peek::kChain));
        bench.ring.complete(bench.chain, 0);
        BOOST_TEST(!bench.ring.armKicks());
        BOOST_TEST(!bench.guest.noNotify(ring));
        if (event_index == EventIndex::kOn) {
            BOOST_TEST(bench.guest.get<uint16_t>(ring.used + 4 + 8UL * 8) == 1);
        }
    }
}

BOOST_AUTO_TEST_CASE(a_stopped_ring_is_left_alone) {
    Bench bench;
    bench.offerOne();
    bench.ring.stop();
    BOOST_TEST(!bench.ring.ready());
    BOOST_TEST((bench.peek() == Peek::kNone));
    BOOST_TEST(!bench.ring.armKicks());
    BOOST_TEST(!bench.ring.wantsInterrupt());
    bench.ring.suppressKicks();
    bench.ring.publish();
    BOOST_TEST(!bench.guest.noNotify(bench.guest.from_guest));
}

BOOST_AUTO_TEST_SUITE_END()
