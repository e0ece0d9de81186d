// One stream between a host socket and the guest: its state machine, credit and buffer.
//
// A stream acts on its own socket only. What is to be told to the guest it notes (nextControl(),
// takeOwedReset()), and its owner looks after every call that changed it. Half-close works both
// ways: the host's shutdown(SHUT_WR) becomes SHUTDOWN(SEND), the guest's becomes shutdown(SHUT_WR)
// once all that it sent has been written.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vsock/byte_queue.h"
#include "vsock/credit.h"
#include "vsock/event_loop.h"
#include "vsock/linked_list.h"
#include "vsock/packet.h"

namespace arca::vsock {

struct StreamKey {
    uint32_t host_port = 0;
    uint32_t guest_port = 0;
    [[nodiscard]] uint64_t packed() const { return uint64_t{host_port} << 32U | guest_port; }
};

class Stream;

// The owner of streams.
class StreamListener {
 public:
    virtual ~StreamListener() = default;
    // An event of the host socket or a timer changed `stream`.
    virtual void onStreamChanged(Stream& stream) = 0;
};

class Stream final : public EventHandler {
 public:
    enum class Origin { kGuest, kHost };
    enum class Phase {
        kRequested,  // the host asked for it; the guest has not answered
        kOpen,
        kClosing,   // both directions have ended on the host's side; the guest's reset is awaited
        kDraining,  // nothing to do with the guest any more; what it sent still goes to the host
        kDead,
    };

    // How long the guest may take to answer a request, and to confirm a close (Linux: 8 s).
    static constexpr std::chrono::milliseconds kRequestTimeout{10'000};
    static constexpr std::chrono::milliseconds kCloseTimeout{8'000};

    // A stream that the guest asked for starts open, with a response to send; one that the host
    // asked for with a request. `buffer_space`: bytes kept at most for a host that does not read.
    Stream(EventLoop& loop, StreamListener& listener, StreamKey key, Origin origin,
           uint32_t buffer_space);

    // Takes the connected host socket. Must come first; a stream whose start failed is kDead.
    base::Result<> start(base::UniqueFd socket);

    [[nodiscard]] StreamKey key() const { return key_; }
    [[nodiscard]] Phase phase() const { return phase_; }
    // True while packets of the guest belong to this stream.
    [[nodiscard]] bool attached() const { return phase_ < Phase::kDraining; }
    [[nodiscard]] uint32_t bufferSpace() const { return credit_.ownSpace(); }
    [[nodiscard]] size_t buffered() const { return to_host_.size(); }

    // --- Packets of the guest; onCredit() first for each of them.
    void onCredit(uint32_t peer_space, uint32_t peer_forwarded);
    void onResponse();
    // `payload` lies in guest memory and is `bytes` long.
    void onData(std::span<iovec> payload, uint32_t bytes);
    void onShutdown(uint32_t flags);
    void onReset();
    void onCreditRequest();
    // A packet that has no place in the protocol.
    void onViolation();

    // --- Towards the guest.

    // A control packet that waits to be sent, most urgent first; taking it forgets it.
    std::optional<Op> nextControl();
    [[nodiscard]] bool hasControl() const { return control_ != 0; }
    // Flags for the header of a kShutdown.
    [[nodiscard]] uint32_t shutdownFlags() const { return told_shutdown_; }
    // True once when the guest must be sent a reset, the last that it hears of this stream.
    bool takeOwedReset();

    // True when data may be waiting for the guest and it has room. Asks the guest for its credit
    // when only that is missing.
    bool readyToSend();
    [[nodiscard]] uint32_t sendable() const { return credit_.sendable(); }
    // Reads from the host straight into guest memory; gives the bytes read, 0 when there was
    // nothing or the direction has ended (the phase tells). `room` is at most sendable() long.
    uint32_t readFromHost(std::span<iovec> room);
    // The credit fields for a header to the guest.
    [[nodiscard]] uint32_t tellForwarded() { return credit_.tellForwarded(); }

    // The VMM is gone: what the guest has sent still goes to the host, nothing else.
    void detach();
    // Ends at once.
    void abort();

    void onEvents(uint32_t events) override;

    // The owner's lists.
    Link<Stream> control_link{*this};
    Link<Stream> data_link{*this};

 private:
    void onTimeout();
    void flush();
    void afterFlush();
    void closeWriting();
    void hostGone();
    void hostEnded();
    void finishIfDone();
    void leaveGuest();
    void die();
    void resetGuest();
    void note(Op op) { control_ |= 1U << static_cast<unsigned>(op); }
    void watchWritable();

    StreamListener& listener_;
    StreamKey key_;
    Phase phase_;
    Watch socket_;
    Timer timer_;
    Credit credit_;
    ByteQueue to_host_;
    uint32_t control_ = 0;  // bit n: Op n waits to be sent
    uint32_t guest_shutdown_ = 0;
    uint32_t told_shutdown_ = 0;
    bool owes_reset_ = false;
    bool watches_writable_ = false;
    bool readable_ = true;        // a read may give something; true until one did not
    bool host_end_seen_ = false;  // the host will send no more, though bytes may still be queued
    bool host_hung_up_ = false;   // the host neither sends nor reads
    bool reading_done_ = false;   // nothing more goes from the host to the guest
    bool writing_done_ = false;   // nothing more goes from the guest to the host
    bool credit_asked_ = false;
};

}  // namespace arca::vsock
