#include <sys/eventfd.h>
#include <sys/mman.h>

#include <cstring>
#include <string>

#include "vsock/fake_guest.h"
#include "vsock/test_tools.h"
#include "vsock/vhost_user_session.h"

using namespace arca::vsock;
using namespace arca::vsock::testing;
using arca::base::UniqueFd;

namespace {

constexpr uint32_t kVersion = 1;
constexpr uint32_t kNeedReply = 8;
constexpr uint64_t kGoodFeatures = uint64_t{1} << 32U | uint64_t{1} << 30U | uint64_t{1} << 29U;

template <typename... T>
std::string pack(T... values) {
    std::string out;
    (out.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
    return out;
}

std::string message(Request request, const std::string& payload, uint32_t flags = kVersion) {
    return pack(static_cast<uint32_t>(request), flags, static_cast<uint32_t>(payload.size())) +
           payload;
}

// A VMM with one region of memory, in which a FakeGuest's layout lies.
struct Bench {
    Bench()
        : loop(makeLoop()),
          device(*loop, dialer, {42, 16}),
          session(std::make_unique<VhostUserSession>(*loop, device, [this] {
              ++ended;
              session.reset();
          })) {
        auto [ours, theirs] = makePair();
        vmm = std::move(theirs);
        const bool accepted = bool(session->start(std::move(ours)));
        BOOST_TEST_REQUIRE(accepted);
    }
    void run() {
        for (int i = 0; i < 4; ++i) {
            BOOST_TEST_REQUIRE(bool(loop->turn(EventLoop::Wait::kNot)));
            (void)device.work();
        }
    }
    // Sends a message and gives what comes back.
    std::string say(const std::string& bytes, const std::vector<int>& fds = {}) {
        if (fds.empty()) {
            BOOST_TEST_REQUIRE(writeNow(vmm, bytes) == bytes.size());
        } else {
            BOOST_TEST_REQUIRE(bool(arca::base::sendMessage(vmm.get(), bytes, fds)));
        }
        run();
        return readNow(vmm);
    }
    std::string say(Request request, const std::string& payload = {},
                    const std::vector<int>& fds = {}) {
        return say(message(request, payload), fds);
    }
    uint64_t ask(Request request) {
        const std::string answer = say(request);
        BOOST_TEST_REQUIRE(answer.size() == 20U);
        BOOST_TEST(answer.substr(0, 12) == pack(static_cast<uint32_t>(request), kVersion | 4U, 8U));
        uint64_t value = 0;
        std::memcpy(&value, answer.data() + 12, sizeof value);
        return value;
    }
    bool alive() {
        run();
        return ended == 0;
    }
    static std::string region(uint64_t size) {
        return pack(1U, 0U, FakeGuest::kGuestBase, size, FakeGuest::kUserBase, uint64_t{0});
    }
    // The whole set-up as QEMU does it.
    void setUp() {
        memory = UniqueFd(::memfd_create("memory", MFD_CLOEXEC));
        BOOST_TEST_REQUIRE(::ftruncate(memory.get(), kMemory) == 0);
        mapped = static_cast<std::byte*>(
            ::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0));
        (void)say(Request::kSetProtocolFeatures, pack(uint64_t{1} << 3U | uint64_t{1} << 9U));
        (void)say(Request::kSetOwner);
        (void)say(Request::kSetFeatures, pack(uint64_t{1} << 32U | uint64_t{1} << 30U));
        (void)say(Request::kSetMemTable, region(kMemory), {memory.get()});
        const FakeGuest layout;
        for (const FakeRing* ring : {&layout.to_guest, &layout.from_guest}) {
            const uint32_t index = ring == &layout.to_guest ? 0 : 1;
            const RingAddresses at = FakeGuest::addresses(*ring);
            const UniqueFd kick(::eventfd(0, EFD_CLOEXEC));
            const UniqueFd call(::eventfd(0, EFD_CLOEXEC));
            (void)say(Request::kSetVringNum, pack(index, uint32_t{ring->size}));
            (void)say(Request::kSetVringBase, pack(index, 0U));
            (void)say(Request::kSetVringAddr,
                      pack(index, 0U, at.descriptors, at.used, at.available, uint64_t{0}));
            (void)say(Request::kSetVringKick, pack(uint64_t{index}), {kick.get()});
            (void)say(Request::kSetVringCall, pack(uint64_t{index}), {call.get()});
            (void)say(Request::kSetVringEnable, pack(index, 1U));
        }
    }
    ~Bench() {
        if (mapped != nullptr) (void)::munmap(mapped, kMemory);
    }

    static constexpr size_t kMemory = size_t{1} << 20U;
    std::unique_ptr<EventLoop> loop;
    FakeDialer dialer;
    Device device;
    std::unique_ptr<VhostUserSession> session;
    UniqueFd vmm;
    UniqueFd memory;
    std::byte* mapped = nullptr;
    int ended = 0;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(vhost_user)

BOOST_AUTO_TEST_CASE(offers_what_a_vsock_device_needs) {
    Bench bench;
    BOOST_TEST(bench.ask(Request::kGetFeatures) == kGoodFeatures);
    BOOST_TEST(bench.ask(Request::kGetProtocolFeatures) ==
               (1U << 0U | 1U << 3U | 1U << 9U));  // MQ, REPLY_ACK, CONFIG
    BOOST_TEST(bench.ask(Request::kGetQueueNum) == 2U);
}

BOOST_AUTO_TEST_CASE(tells_the_cid) {
    Bench bench;
    // offset, size, flags, room for the answer
    const std::string answer = bench.say(Request::kGetConfig, pack(0U, 8U, 0U, uint64_t{0}));
    BOOST_TEST(answer == pack(uint32_t{24}, kVersion | 4U, 20U, 0U, 8U, 0U, uint64_t{42}));
    // The upper half alone.
    BOOST_TEST(bench.say(Request::kGetConfig, pack(4U, 4U, 0U, 0U)).substr(24) == pack(0U));
}

BOOST_AUTO_TEST_CASE(a_set_up_device_moves_packets) {
    Bench bench;
    bench.setUp();
    BOOST_TEST(bench.alive());
    auto [ours, client] = makePair();
    const bool accepted = bool(bench.device.connect(std::move(ours), 7));
    BOOST_TEST(accepted);
    // A buffer for the request, written by hand where the rings lie.
    FakeGuest guest;
    guest.postBuffer();
    std::memcpy(bench.mapped, guest.memory().data(), 0x8000);
    bench.run();
    HeaderBytes bytes;
    std::memcpy(bytes.data(), bench.mapped + 0x10000, bytes.size());
    const PacketHeader header = decodeHeader(bytes);
    BOOST_TEST((header.op == Op::kRequest));
    BOOST_TEST(header.target_cid == 42U);
    BOOST_TEST(header.target_port == 7U);
    // Stopping a queue tells where it was.
    const std::string answer = bench.say(Request::kGetVringBase, pack(0U, 0U));
    BOOST_TEST(answer == pack(uint32_t{11}, kVersion | 4U, 8U, 0U, 1U));
    BOOST_TEST(!atEnd(client));
}

BOOST_AUTO_TEST_CASE(a_closed_connection_leaves_nothing_behind) {
    const size_t before = openDescriptors();
    {
        Bench bench;
        bench.setUp();
        auto [ours, client] = makePair();
        const bool accepted = bool(bench.device.connect(std::move(ours), 7));
        BOOST_TEST(accepted);
        bench.vmm.reset();
        bench.run();
        BOOST_TEST(bench.ended == 1);
        BOOST_TEST(bench.device.idle());
        BOOST_TEST(atEnd(client));
    }
    BOOST_TEST(openDescriptors() == before);
}

BOOST_AUTO_TEST_CASE(replies_when_asked_to) {
    Bench bench;
    (void)bench.say(Request::kSetProtocolFeatures, pack(uint64_t{8}));
    const std::string good = message(Request::kSetOwner, {}, kVersion | kNeedReply);
    BOOST_TEST(bench.say(good) == pack(uint32_t{3}, kVersion | 4U, 8U, uint64_t{0}));
    const std::string bad = message(Request::kSetVringNum, pack(5U, 16U), kVersion | kNeedReply);
    BOOST_TEST(bench.say(bad) == pack(uint32_t{8}, kVersion | 4U, 8U, uint64_t{1}));
    BOOST_TEST(bench.ended == 1);
}

BOOST_AUTO_TEST_CASE(messages_may_come_in_pieces) {
    Bench bench;
    const std::string whole =
        message(Request::kGetFeatures, {}) + message(Request::kGetQueueNum, {});
    std::string answers;
    for (const char c : whole) answers += bench.say(std::string(1, c));
    BOOST_TEST(answers.size() == 40U);
    BOOST_TEST(bench.alive());
}

BOOST_AUTO_TEST_CASE(anything_malformed_ends_the_connection) {
    const size_t before = openDescriptors();
    const uint64_t none = 0x100;
    struct Case {
        const char* what;
        std::string bytes;
        size_t descriptors = 0;
    };
    const std::vector<Case> cases = {
        {"no version", message(Request::kSetOwner, {}, 0)},
        {"another version", message(Request::kSetOwner, {}, 2)},
        {"a reply", message(Request::kSetOwner, {}, kVersion | 4)},
        {"a payload that is too large", pack(3U, kVersion, 513U)},
        {"a payload of four gigabytes", pack(3U, kVersion, 0xffffffffU)},
        {"an unknown message", message(static_cast<Request>(77), {})},
        {"logging", message(static_cast<Request>(6), pack(uint64_t{0}, uint64_t{0}))},
        {"features that were not offered",
         message(Request::kSetFeatures, pack(uint64_t{1} << 28U))},
        {"half the features", message(Request::kSetFeatures, pack(0U))},
        {"protocol features not offered",
         message(Request::kSetProtocolFeatures, pack(uint64_t{1} << 15U))},
        {"a queue that is not there", message(Request::kSetVringNum, pack(2U, 16U))},
        {"no queue", message(Request::kSetVringNum, pack(0U))},
        {"a base out of range", message(Request::kSetVringBase, pack(0U, 65536U))},
        {"enable another queue", message(Request::kSetVringEnable, pack(0xffffffffU, 1U))},
        {"an address without a queue", message(Request::kSetVringAddr, pack(2U, 0U))},
        {"an address with logging",
         message(Request::kSetVringAddr,
                 pack(0U, 1U, uint64_t{0}, uint64_t{0}, uint64_t{0}, uint64_t{0}))},
        {"a kick without a descriptor", message(Request::kSetVringKick, pack(uint64_t{0}))},
        {"a kick by polling", message(Request::kSetVringKick, pack(none))},
        {"a kick with two descriptors", message(Request::kSetVringKick, pack(uint64_t{0})), 2},
        {"a kick before memory and rings", message(Request::kSetVringKick, pack(uint64_t{0})), 1},
        {"a call for another queue", message(Request::kSetVringCall, pack(uint64_t{2})), 1},
        {"base of another queue", message(Request::kGetVringBase, pack(2U, 0U))},
        {"base without a queue", message(Request::kGetVringBase, {})},
        {"memory without regions", message(Request::kSetMemTable, pack(0U, 0U))},
        {"memory without descriptors", message(Request::kSetMemTable, Bench::region(4096))},
        {"memory with nine regions", message(Request::kSetMemTable, pack(9U, 0U))},
        {"memory cut short", message(Request::kSetMemTable, pack(2U, 0U, uint64_t{0}))},
        {"memory behind its file",
         message(Request::kSetMemTable, Bench::region(uint64_t{1} << 40U)), 1},
        {"configuration beyond its end",
         message(Request::kGetConfig, pack(250U, 8U, 0U, uint64_t{0}))},
        {"configuration with a wrapping range",
         message(Request::kGetConfig, pack(8U, 0xfffffff8U, 0U))},
        {"configuration with less room than asked for",
         message(Request::kGetConfig, pack(0U, 8U, 0U))},
        {"writing the configuration", message(Request::kSetConfig, pack(0U, 8U, 0U, uint64_t{7}))},
        {"nine descriptors", message(Request::kSetOwner, {}), 9},
    };
    for (const Case& c : cases) {
        BOOST_TEST_CONTEXT(c.what) {
            Bench bench;
            const UniqueFd event(::eventfd(0, EFD_CLOEXEC));
            (void)bench.say(c.bytes, std::vector<int>(c.descriptors, event.get()));
            BOOST_TEST(bench.ended == 1);
            BOOST_TEST(atEnd(bench.vmm));
        }
    }
    BOOST_TEST(openDescriptors() == before);
}

BOOST_AUTO_TEST_CASE(a_running_queue_cannot_be_changed) {
    for (const std::string& bytes :
         {message(Request::kSetVringNum, pack(0U, 8U)),
          message(Request::kSetVringBase, pack(0U, 0U)),
          message(Request::kSetVringAddr,
                  pack(0U, 0U, uint64_t{0}, uint64_t{0}, uint64_t{0}, uint64_t{0}))}) {
        Bench bench;
        bench.setUp();
        BOOST_TEST_REQUIRE(bench.alive());
        (void)bench.say(bytes);
        BOOST_TEST(bench.ended == 1);
    }
}

BOOST_AUTO_TEST_CASE(a_kick_that_cannot_be_watched_ends_the_connection) {
    Bench bench;
    bench.setUp();
    const UniqueFd file(::memfd_create("no event", MFD_CLOEXEC));
    (void)bench.say(Request::kSetVringKick, pack(uint64_t{0}), {file.get()});
    BOOST_TEST(bench.ended == 1);
}

BOOST_AUTO_TEST_CASE(a_reset_forgets_everything) {
    Bench bench;
    bench.setUp();
    (void)bench.say(Request::kResetOwner);
    BOOST_TEST(bench.alive());
    auto [ours, client] = makePair();
    const bool accepted = bool(bench.device.connect(std::move(ours), 7));
    BOOST_TEST(!accepted);
}

BOOST_AUTO_TEST_SUITE_END()
