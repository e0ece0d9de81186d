#include "vsock/vhost_user_session.h"

#include <endian.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "vsock/guest_memory.h"

namespace arca::vsock {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
namespace log = base::log;

constexpr uint64_t kRingEventIndex = uint64_t{1} << 29U;
constexpr uint64_t kProtocolFeatures = uint64_t{1} << 30U;
constexpr uint64_t kVersion1 = uint64_t{1} << 32U;
constexpr uint64_t kOffered = kRingEventIndex | kProtocolFeatures | kVersion1;

constexpr uint64_t kProtocolMultiQueue = uint64_t{1} << 0U;
constexpr uint64_t kProtocolReplyAck = uint64_t{1} << 3U;
constexpr uint64_t kProtocolConfig = uint64_t{1} << 9U;
constexpr uint64_t kProtocolOffered = kProtocolMultiQueue | kProtocolReplyAck | kProtocolConfig;

// With a descriptor message: the low byte is the queue, this bit says that no descriptor comes.
constexpr uint64_t kNoDescriptor = 0x100;

// struct virtio_vsock_config: the CID, 8 bytes. A VMM may ask for more, and gets zeros.
constexpr size_t kMaxConfigBytes = 256;
constexpr size_t kConfigHeaderBytes = 12;  // offset, size, flags

std::string requestName(Request request) {
    return "message " + std::to_string(static_cast<uint32_t>(request));
}

struct QueueState {  // payload of NUM, BASE, ENABLE
    uint32_t index;
    uint32_t number;
};

Result<QueueState> queueState(const VhostUserMessage& message) {
    const auto state = message.at<QueueState>(0);
    if (!state || state->index >= Device::kQueues) {
        return fail(Code::kInvalidArgument, "no such queue");
    }
    return *state;
}

}  // namespace

VhostUserSession::VhostUserSession(EventLoop& loop, Device& device, std::function<void()> ended)
    : device_(device), ended_(std::move(ended)), socket_(loop, *this), channel_(-1) {}

VhostUserSession::~VhostUserSession() = default;

Result<> VhostUserSession::start(UniqueFd socket) {
    channel_ = VhostUserChannel(socket.get());
    return socket_.open(std::move(socket), EPOLLIN | EPOLLRDHUP);
}

void VhostUserSession::onEvents(uint32_t /*events*/) {
    // One message an event: the socket is level-triggered, and the rings get their turn in between.
    Result<std::optional<VhostUserMessage>> message = channel_.receive();
    if (!message) {
        end(message.error());
        return;
    }
    if (!*message) return;
    if (Result<> done = onMessage(**message); !done) {
        end(std::move(done).error().withContext(requestName((*message)->request)));
    }
}

void VhostUserSession::end(const base::Error& why) {
    if (why.code() == Code::kUnavailable) {
        log::info(why.message());
    } else {
        log::error("vhost-user: " + why.message());
    }
    socket_.close();
    device_.detach();
    const std::function<void()> ended = std::move(ended_);
    ended();
}

Result<> VhostUserSession::onMessage(VhostUserMessage& message) {
    switch (message.request) {
        case Request::kGetFeatures:
            return replyNumber(message, kOffered);
        case Request::kGetProtocolFeatures:
            return replyNumber(message, kProtocolOffered);
        case Request::kGetQueueNum:
            return replyNumber(message, Device::kQueues);
        case Request::kGetVringBase:
            return replyQueueBase(message);
        case Request::kGetConfig:
            return replyConfig(message);
        default:
            break;
    }
    Result<> done = carryOut(message);
    if (message.needs_reply && (protocol_features_ & kProtocolReplyAck) != 0) {
        // A failure is told, too, before the connection ends.
        Result<> replied = replyNumber(message, done ? 0 : 1);
        if (done) return replied;
    }
    return done;
}

Result<> VhostUserSession::carryOut(VhostUserMessage& message) {
    switch (message.request) {
        case Request::kSetOwner:
            return {};
        case Request::kResetOwner:
        case Request::kResetDevice:
            device_.detach();
            return {};
        case Request::kSetFeatures:
            return setFeatures(message);
        case Request::kSetProtocolFeatures: {
            const auto features = message.at<uint64_t>(0);
            if (!features || (*features & ~kProtocolOffered) != 0) {
                return fail(Code::kInvalidArgument, "protocol features that were not offered");
            }
            protocol_features_ = *features;
            return {};
        }
        case Request::kSetMemTable:
            return setMemoryTable(message);
        case Request::kSetVringNum: {
            ARCA_TRY(const QueueState state, queueState(message));
            return device_.queue(state.index).setSize(state.number);
        }
        case Request::kSetVringBase: {
            ARCA_TRY(const QueueState state, queueState(message));
            return device_.queue(state.index).setBase(state.number);
        }
        case Request::kSetVringEnable: {
            ARCA_TRY(const QueueState state, queueState(message));
            device_.enableQueue(state.index, state.number != 0);
            return {};
        }
        case Request::kSetVringAddr:
            return setQueueAddresses(message);
        case Request::kSetVringKick:
        case Request::kSetVringCall:
        case Request::kSetVringErr:
            return setQueueDescriptor(message);
        default:
            return fail(Code::kUnsupported, "not a message of this device");
    }
}

Result<> VhostUserSession::setFeatures(const VhostUserMessage& message) {
    const auto features = message.at<uint64_t>(0);
    if (!features || (*features & ~kOffered) != 0) {
        return fail(Code::kInvalidArgument, "features that were not offered");
    }
    features_ = *features;
    device_.setEventIndex((features_ & kRingEventIndex) != 0 ? EventIndex::kOn : EventIndex::kOff);
    // A VMM that does not know of protocol features does not know of enabling either.
    if ((features_ & kProtocolFeatures) == 0) {
        for (size_t i = 0; i < Device::kQueues; ++i) device_.enableQueue(i, true);
    }
    return {};
}

Result<> VhostUserSession::setMemoryTable(VhostUserMessage& message) {
    const auto count = message.at<uint32_t>(0);
    if (!count || *count > GuestMemory::kMaxRegions) {
        return fail(Code::kInvalidArgument, "number of memory regions");
    }
    std::vector<MemoryRegion> regions;
    for (uint32_t i = 0; i < *count; ++i) {
        struct Entry {
            uint64_t guest_address;
            uint64_t size;
            uint64_t user_address;
            uint64_t file_offset;
        };
        const auto entry = message.at<Entry>(8 + i * sizeof(Entry));
        if (!entry) return fail(Code::kInvalidArgument, "memory table cut short");
        regions.push_back(
            {entry->guest_address, entry->size, entry->user_address, entry->file_offset});
    }
    ARCA_TRY(GuestMemory memory, GuestMemory::map(regions, message.fds));
    return device_.setMemory(std::move(memory));
}

Result<> VhostUserSession::setQueueAddresses(const VhostUserMessage& message) {
    struct Payload {
        uint32_t index;
        uint32_t flags;
        uint64_t descriptors;
        uint64_t used;
        uint64_t available;
        uint64_t log;
    };
    const auto payload = message.at<Payload>(0);
    if (!payload || payload->index >= Device::kQueues) {
        return fail(Code::kInvalidArgument, "no such queue");
    }
    if (payload->flags != 0) return fail(Code::kUnsupported, "logging was not offered");
    return device_.queue(payload->index)
        .setAddresses({payload->descriptors, payload->available, payload->used});
}

Result<> VhostUserSession::setQueueDescriptor(VhostUserMessage& message) {
    const auto number = message.at<uint64_t>(0);
    const bool none = number && (*number & kNoDescriptor) != 0;
    if (!number || (*number & 0xffU) >= Device::kQueues || message.fds.size() != (none ? 0 : 1)) {
        return fail(Code::kInvalidArgument, "no such queue, or not one descriptor");
    }
    const auto index = static_cast<size_t>(*number & 0xffU);
    UniqueFd fd = none ? UniqueFd() : std::move(message.fds.front());
    if (message.request == Request::kSetVringCall) {
        device_.queue(index).setInterrupt(std::move(fd));
        return {};
    }
    if (message.request == Request::kSetVringErr) {
        device_.queue(index).setError(std::move(fd));
        return {};
    }
    if (none) return fail(Code::kUnsupported, "a queue without kicks would have to be polled");
    return device_.startQueue(index, std::move(fd));
}

Result<> VhostUserSession::replyQueueBase(const VhostUserMessage& message) {
    ARCA_TRY(QueueState state, queueState(message));
    state.number = device_.stopQueue(state.index);
    return channel_.reply(message.request, &state, sizeof state);
}

Result<> VhostUserSession::replyConfig(const VhostUserMessage& message) {
    const auto offset = message.at<uint32_t>(0);
    const auto size = message.at<uint32_t>(4);
    if (!offset || !size || *offset > kMaxConfigBytes || *size > kMaxConfigBytes - *offset ||
        message.size != kConfigHeaderBytes + *size) {
        return fail(Code::kInvalidArgument, "configuration range");
    }
    std::array<std::byte, kMaxConfigBytes> config{};
    const uint64_t cid = htole64(device_.guestCid());
    std::memcpy(config.data(), &cid, sizeof cid);
    std::array<std::byte, kConfigHeaderBytes + kMaxConfigBytes> answer{};
    std::memcpy(answer.data(), message.payload.data(), kConfigHeaderBytes);
    std::memcpy(answer.data() + kConfigHeaderBytes, config.data() + *offset, *size);
    return channel_.reply(message.request, answer.data(), kConfigHeaderBytes + *size);
}

Result<> VhostUserSession::replyNumber(const VhostUserMessage& message, uint64_t number) {
    return channel_.reply(message.request, &number, sizeof number);
}

}  // namespace arca::vsock
