// What a hostile guest or VMM can do to arca-vsock: rings, packets, host sockets and vhost-user
// messages in any order.
//
// The input is a program of steps. The first byte chooses between a guest, with rings in memory
// that steps write by the rules or against them, and a VMM whose message bytes come from the input.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/socket.h"
#include "vsock/device.h"
#include "vsock/event_loop.h"
#include "vsock/fake_guest.h"
#include "vsock/handshake.h"
#include "vsock/vhost_user_session.h"

namespace {

using namespace arca::vsock;
using arca::base::UniqueFd;
using testing::FakeGuest;
using testing::FakeRing;

constexpr size_t kMaxStreams = 24;
constexpr int kMaxSteps = 400;
constexpr int kMaxTurns = 64;
// Room for the rings and for eight buffers each way: little, because every run clears it.
constexpr size_t kGuestBytes = size_t{384} << 10U;

EventLoop::Clock::time_point now;

void require(bool holds) {
    if (!holds) std::abort();
}

class Input {
 public:
    Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
    [[nodiscard]] bool empty() const { return size_ == 0; }
    template <typename T>
    T take() {
        T value{};
        const size_t count = std::min(sizeof value, size_);
        std::memcpy(&value, data_, count);
        skip(count);
        return value;
    }
    uint8_t byte() { return take<uint8_t>(); }
    std::string_view bytes(size_t count) {
        count = std::min(count, size_);
        const std::string_view out(reinterpret_cast<const char*>(data_), count);
        skip(count);
        return out;
    }

 private:
    void skip(size_t count) {
        data_ += count;
        size_ -= count;
    }
    const uint8_t* data_;
    size_t size_;
};

std::pair<UniqueFd, UniqueFd> makePair() {
    auto pair = arca::base::socketPair(SOCK_STREAM | SOCK_NONBLOCK);
    require(bool(pair));
    return {std::move(pair->first), std::move(pair->second)};
}

UniqueFd makeEvent() {
    return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

// The host's programs: every even port is served.
class Services final : public HostDialer {
 public:
    arca::base::Result<UniqueFd> dial(uint32_t port) override {
        if (port % 2 != 0) return arca::base::fail(arca::base::Code::kNotFound, "not served");
        auto [ours, theirs] = makePair();
        ends.push_back(std::move(theirs));
        return std::move(ours);
    }
    std::vector<UniqueFd> ends;  // of services and of clients
};

class World {
 public:
    explicit World(uint16_t ring_size)
        : loop_(std::move(*EventLoop::create([] { return now; }))),
          guest_(ring_size, kGuestBytes),
          device_(*loop_, services_, {FakeGuest::kCid, kMaxStreams}) {}

    void start(Input& input, bool from_zero) {
        device_.setEventIndex(input.byte() % 2 == 0 ? EventIndex::kOff : EventIndex::kOn);
        require(bool(device_.setMemory(guest_.table())));
        std::array<FakeRing*, 2> rings = {&guest_.to_guest, &guest_.from_guest};
        for (size_t i = 0; i < rings.size(); ++i) {
            DeviceQueue& queue = device_.queue(i);
            (void)queue.setSize(rings[i]->size);
            (void)queue.setAddresses(FakeGuest::addresses(*rings[i]));
            if (from_zero) (void)queue.setBase(0);
            queue.setInterrupt(makeEvent());
            queue.setError(makeEvent());
            (void)device_.startQueue(i, makeEvent());
            device_.enableQueue(i, true);
        }
    }

    void run() {
        bool more = true;
        for (int i = 0; i < kMaxTurns && more; ++i) {
            require(bool(loop_->turn(EventLoop::Wait::kNot)));
            more = device_.work();
        }
        // A guest does not move while we work, so the device must have come to rest.
        require(!more);
        require(device_.streamCount() <= kMaxStreams);
    }

    void step(Input& input) {
        switch (input.byte() % 14) {
            case 0:
            case 1:
                sendPacket(input);
                break;
            case 2:
                guest_.postBuffer(input.take<uint16_t>() % 16000);
                break;
            case 3:
                guest_.postBuffers(input.byte() % 8);
                break;
            case 4:
                poke(input);
                break;
            case 5:
                offerRaw(input);
                break;
            case 6:
                if (UniqueFd* end = pick(input)) {
                    const std::string data(input.take<uint16_t>(), 'h');
                    (void)::send(end->get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
                }
                break;
            case 7:
                if (UniqueFd* end = pick(input)) {
                    std::array<char, 4096> buffer{};
                    int reads = input.byte();
                    while (reads-- > 0 &&
                           ::recv(end->get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) {
                    }
                }
                break;
            case 8:
                if (UniqueFd* end = pick(input)) (void)::shutdown(end->get(), input.byte() % 3);
                break;
            case 9:
                if (UniqueFd* end = pick(input)) {
                    std::swap(*end, services_.ends.back());
                    services_.ends.pop_back();
                }
                break;
            case 10: {
                auto [ours, theirs] = makePair();
                if (device_.connect(std::move(ours), input.byte() % 8)) {
                    services_.ends.push_back(std::move(theirs));
                }
                break;
            }
            case 11:
                now += std::chrono::milliseconds(input.take<uint16_t>());
                break;
            case 12:
                pauseOrReset(input);
                break;
            default:
                run();
                break;
        }
    }

 private:
    UniqueFd* pick(Input& input) {
        if (services_.ends.empty()) return nullptr;
        return &services_.ends[input.byte() % services_.ends.size()];
    }

    void sendPacket(Input& input) {
        // Few ports, so that packets meet streams; those of the host's own streams begin at 2^30.
        const auto ports = input.byte();
        PacketHeader header =
            FakeGuest::header(static_cast<Op>(input.byte() % 9), ports % 8,
                              (ports & 0x80U) != 0 ? (1U << 30U) + ports / 8 % 16 : ports / 8 % 16);
        const auto quirks = input.byte();
        if ((quirks & 1U) != 0) header.flags = input.byte();
        if ((quirks & 2U) != 0) header.buffer_space = input.take<uint32_t>();
        if ((quirks & 4U) != 0) header.forwarded_bytes = input.take<uint32_t>();
        if ((quirks & 8U) != 0) header.type = input.take<uint16_t>();
        if ((quirks & 16U) != 0) header.source_cid = input.byte();
        if ((quirks & 32U) != 0) header.target_cid = input.byte();
        const std::string payload(header.op == Op::kData ? input.take<uint16_t>() % 16000U : 0,
                                  'g');
        header.length = static_cast<uint32_t>(payload.size());
        if ((quirks & 64U) != 0) header.length = input.take<uint32_t>();
        guest_.send(header, payload);
    }

    // Anything anywhere in the rings.
    void poke(Input& input) {
        const size_t at = input.take<uint16_t>() % 0xc800U;
        const std::string_view bytes = input.bytes(input.byte() % 32U);
        std::memcpy(guest_.memory().data() + at, bytes.data(), bytes.size());
    }

    void offerRaw(Input& input) {
        FakeRing& ring = input.byte() % 2 == 0 ? guest_.to_guest : guest_.from_guest;
        const auto index = static_cast<uint16_t>(input.byte() % ring.size);
        const uint64_t address =
            FakeGuest::kGuestBase + input.take<uint32_t>() % (kGuestBytes + 0x100U);
        guest_.writeDescriptor(ring, index, address, input.take<uint32_t>() % 0x20000U,
                               input.byte() % 8U, input.byte() % (ring.size + 1U));
        guest_.offer(ring, static_cast<uint16_t>(input.byte() % (ring.size + 1)));
    }

    void pauseOrReset(Input& input) {
        const auto how = input.byte();
        if (how % 8 == 0) {
            device_.detach();
        } else {
            for (size_t i = 0; i < Device::kQueues; ++i) {
                if ((how & 8U) != 0) device_.enableQueue(i, false);
                (void)device_.stopQueue(i);
            }
        }
        const bool reset = (how & 16U) != 0;
        if (reset) {
            std::memset(guest_.memory().data(), 0, 0xc800);
            for (FakeRing* ring : {&guest_.to_guest, &guest_.from_guest}) {
                ring->next_available = ring->next_descriptor = ring->last_used = 0;
            }
        }
        start(input, reset);
    }

    std::unique_ptr<EventLoop> loop_;
    Services services_;
    FakeGuest guest_;
    Device device_;
};

void runGuest(Input& input) {
    World world(static_cast<uint16_t>(1U << (input.byte() % 7U)));
    world.start(input, true);
    for (int i = 0; i < kMaxSteps && !input.empty(); ++i) world.step(input);
    world.run();
    world.run();
}

void runVmm(Input& input) {
    static const UniqueFd memory = [] {
        UniqueFd fd(::memfd_create("memory", MFD_CLOEXEC));
        require(::ftruncate(fd.get(), 1 << 20) == 0);
        return fd;
    }();
    const auto loop = std::move(*EventLoop::create([] { return now; }));
    Services services;
    Device device(*loop, services, {FakeGuest::kCid, kMaxStreams});
    bool ended = false;
    auto [ours, vmm] = makePair();
    VhostUserSession session(*loop, device, [&] { ended = true; });
    require(bool(session.start(std::move(ours))));
    for (int i = 0; i < kMaxSteps && !input.empty() && !ended; ++i) {
        const auto how = input.byte();
        std::vector<int> fds;
        const UniqueFd event = makeEvent();
        for (unsigned k = 0; k < (how & 3U); ++k) {
            fds.push_back((how & 4U) != 0 ? memory.get() : event.get());
        }
        std::string bytes;
        if ((how & 8U) != 0) {
            // A header that is right, with a payload from the input.
            const uint32_t payload = input.byte();
            for (const uint32_t field :
                 {uint32_t{input.byte()} % 40U, 1U | (how & 16U) / 2, payload}) {
                bytes.append(reinterpret_cast<const char*>(&field), sizeof field);
            }
            bytes += input.bytes(payload);
        } else {
            bytes = std::string(input.bytes(1 + how / 16U));
        }
        if (!bytes.empty()) (void)arca::base::sendMessage(vmm.get(), bytes, fds);
        for (int turn = 0; turn < 3; ++turn) {
            require(bool(loop->turn(EventLoop::Wait::kNot)));
            (void)device.work();
        }
        std::array<char, 4096> answer{};
        (void)::recv(vmm.get(), answer.data(), answer.size(), MSG_DONTWAIT);
    }
}

// The lines that host programs write come from the host, but cost nothing to try along.
void runLine(Input& input) {
    const std::string_view text = input.bytes(64);
    const ConnectLine line = parseConnectLine(text);
    require(line.bytes <= std::min(text.size(), kMaxConnectLine));
}

size_t openDescriptors() {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
        ++count;
    }
    return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const bool quiet = [] {
        return bool(arca::base::log::setUp(
            {{}, arca::base::log::Format::kText, static_cast<arca::base::log::Level>(100)}));
    }();
    require(quiet);
    now = {};
    Input input(data, size);
    switch (input.byte() % 4) {
        case 0:
        case 1:
            runGuest(input);
            break;
        case 2:
            runVmm(input);
            break;
        default:
            runLine(input);
            break;
    }
    // Descriptors are a resource of the host's, too: none may stay behind.
    static unsigned runs = 0;
    static size_t before = 0;
    if (++runs == 100) before = openDescriptors();
    if (runs % 5000 == 0) require(openDescriptors() <= before + 8);
    return 0;
}
