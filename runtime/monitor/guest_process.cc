#include "runtime/monitor/guest_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/log.h"
#include "runtime/monitor/ports.h"
#include "runtime/rpc_names.h"
#include "sandbox_context.pb.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
using proto::LeaseMessage;
using proto::LeasePacket;
namespace wire = com::apple::containerization::sandbox::v3;

namespace {

constexpr std::chrono::milliseconds kOutputPatience{2'000};
constexpr std::chrono::milliseconds kKillPatience{5'000};
constexpr std::chrono::milliseconds kCallLimit{10'000};
constexpr size_t kStdin = 0;
constexpr size_t kStdout = 1;

template <typename Request>
Request requestFor(const GuestProcessRequest& process) {
    Request request;
    request.set_id(process.process);
    request.set_containerid(process.container);
    return request;
}

UniqueFd copyOf(const UniqueFd& fd) {
    return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
}

}  // namespace

GuestProcess::GuestProcess(Surroundings around, GuestProcessRequest request)
    : around_(std::move(around)), request_(std::move(request)) {}

// ---- streams ----

Result<> GuestProcess::listen() {
    // A terminal has one stream each way; its descriptor is the same.
    if (request_.terminal) request_.streams[kStdout] = copyOf(request_.streams[kStdin]);
    for (size_t i = 0; i < request_.streams.size(); ++i) {
        if (request_.streams[i].valid()) ARCA_CHECK(listenOn(i));
    }
    return {};
}

Result<> GuestProcess::listenOn(size_t stream) {
    auto port = listenOnFreePort(around_.transport, around_.next_port);
    if (!port) return fail(std::move(port).error().withContext("listen for a stream"));
    request_.ports[stream] = port->number;
    listeners_[stream] = std::move(port->listener);
    ARCA_TRY(accepts_[stream], base::Watch::make(around_.loop, listeners_[stream]->fd(), EPOLLIN,
                                                 [this, stream](uint32_t) { accept(stream); }));
    return {};
}

void GuestProcess::accept(size_t stream) {
    const auto keep = shared_from_this();
    auto connection = listeners_[stream]->accept();
    if (!connection && connection.error().sysErrno() == EAGAIN) {
        return base::log::warning("a stream of " + request_.process + ": " +
                                  connection.error().message());
    }
    accepts_[stream].reset();
    listeners_[stream].reset();  // one connection, exactly
    if (!connection) {
        base::log::warning("a stream of " + request_.process + ": " + connection.error().message());
        return pumpEnded(stream, 0);
    }
    connectStream(stream, std::move(*connection));
}

void GuestProcess::connectStream(size_t stream, UniqueFd connection) {
    UniqueFd own = std::move(request_.streams[stream]);
    const auto done = [weak = weak_from_this(), stream](size_t lost_bytes) {
        if (const auto self = weak.lock()) self->pumpEnded(stream, lost_bytes);
    };
    if (stream == kStdin) {
        pumps_[stream] = base::Pump::start(around_.loop, base::unshared(std::move(own), O_RDONLY),
                                           std::move(connection), done);
    } else {
        pumps_[stream] = base::Pump::start(around_.loop, std::move(connection),
                                           base::unshared(std::move(own), O_WRONLY), done);
    }
}

void GuestProcess::pumpEnded(size_t stream, size_t lost_bytes) {
    pumps_[stream].reset();
    request_.streams[stream].reset();
    if (lost_bytes > 0 && stream != kStdin) {
        base::log::debug("the reader of " + request_.process + " went away, " +
                         std::to_string(lost_bytes) + " bytes were not taken");
    }
    report(false);
    checkOver();
}

bool GuestProcess::outputEnded() const {
    for (size_t i = kStdout; i < pumps_.size(); ++i) {
        if (pumps_[i] || listeners_[i]) return false;
    }
    return true;
}

// ---- the stand-in ----

void GuestProcess::commit() {
    committed_ = true;
    auto watch = base::Watch::make(around_.loop, request_.lease.get(), EPOLLIN,
                                   [this](uint32_t) { leaseReady(); });
    if (watch) lease_watch_ = std::move(*watch);
    waitForExit();
}

void GuestProcess::leaseReady() {
    const auto keep = shared_from_this();
    LeasePacket packet{};
    const ssize_t n = ::recv(request_.lease.get(), &packet, sizeof packet, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n != static_cast<ssize_t>(sizeof packet)) return leaseEnded();
    if (packet.type == LeaseMessage::kSignal) passSignal(static_cast<int>(packet.a));
    if (packet.type == LeaseMessage::kResize) passSize(packet.a, packet.b);
}

void GuestProcess::leaseEnded() {
    lease_watch_.reset();
    request_.lease.reset();
    if (reported_) return checkOver();
    reported_ = true;  // there is nobody to tell
    if (exit_code_) return checkOver();
    base::log::info("the stand-in of " + request_.process + " ended; its process is killed");
    passSignal(SIGKILL);
    timer_ = base::Timer(around_.loop, kKillPatience, [this] {
        around_.lose("the guest does not end process " + request_.process +
                     ", whose stand-in was killed");
    });
}

void GuestProcess::passSignal(int signal_number) {
    GrpcChannel* channel = around_.channel();
    if (channel == nullptr || exit_code_) return;
    auto request = requestFor<wire::KillProcessRequest>(request_);
    request.set_signal(signal_number);
    channel->call<wire::KillProcessResponse>(
        ARCA_CONTEXT_RPC("KillProcess"), request, kCallLimit,
        [weak = weak_from_this(), signal_number](const Result<wire::KillProcessResponse>& done) {
            const auto self = weak.lock();
            if (!self || done) return;
            // One that was never started, of an agent that makes it only then: it never will be.
            constexpr int kKilled = 128 + SIGKILL;
            if (signal_number == SIGKILL && done.error().code() == Code::kFailedPrecondition) {
                return self->exited(kKilled);
            }
            base::log::warning("signal for " + self->request_.process + ": " +
                               done.error().message());
        });
}

void GuestProcess::passSize(uint32_t rows, uint32_t columns) {
    GrpcChannel* channel = around_.channel();
    if (channel == nullptr || exit_code_) return;
    auto request = requestFor<wire::ResizeProcessRequest>(request_);
    request.set_rows(rows);
    request.set_columns(columns);
    channel->call<wire::ResizeProcessResponse>(
        ARCA_CONTEXT_RPC("ResizeProcess"), request, kCallLimit,
        [id = request_.process](const Result<wire::ResizeProcessResponse>& done) {
            if (!done) base::log::debug("resize of " + id + ": " + done.error().message());
        });
}

void GuestProcess::tell(LeaseMessage type, uint32_t value) {
    if (!request_.lease.valid()) return;
    const LeasePacket packet{type, value, 0};
    (void)::send(request_.lease.get(), &packet, sizeof packet, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// ---- its end ----

void GuestProcess::waitForExit() {
    GrpcChannel* channel = around_.channel();
    if (channel == nullptr) return lost();
    channel->call<wire::WaitProcessResponse>(
        ARCA_CONTEXT_RPC("WaitProcess"), requestFor<wire::WaitProcessRequest>(request_),
        std::nullopt, [weak = weak_from_this()](const Result<wire::WaitProcessResponse>& done) {
            const auto self = weak.lock();
            if (!self) return;
            if (done) return self->exited(done->exitcode());
            // The monitor is told too, finds out why, and then calls lost().
            if (done.error().code() == Code::kUnavailable) return;
            base::log::warning("wait for " + self->request_.process + ": " +
                               done.error().message());
            self->lost();
        });
}

void GuestProcess::exited(int code) {
    if (exit_code_) return;
    constexpr int kMask = 0xff;
    exit_code_ = code & kMask;
    timer_.reset();
    if (!isInit()) {
        // A detached exec has nobody else who deletes it.
        if (GrpcChannel* channel = around_.channel()) {
            channel->call<wire::DeleteProcessResponse>(
                ARCA_CONTEXT_RPC("DeleteProcess"), requestFor<wire::DeleteProcessRequest>(request_),
                kCallLimit, [](const Result<wire::DeleteProcessResponse>&) {});
        }
    }
    for (size_t i = 0; i < listeners_.size(); ++i) {
        // The guest dialled during CreateProcess or never will.
        accepts_[i].reset();
        listeners_[i].reset();
    }
    if (const auto input = std::exchange(pumps_[kStdin], nullptr)) input->abandon();
    for (UniqueFd& stream : request_.streams) stream.reset();
    timer_ = base::Timer(around_.loop, kOutputPatience, [this] {
        const auto keep = shared_from_this();
        report(true);
    });
    report(false);
    checkOver();  // perhaps its stand-in and its streams are gone already
}

void GuestProcess::report(bool patience_over) {
    if (reported_ || !exit_code_ || (!patience_over && !outputEnded())) return;
    reported_ = true;
    timer_.reset();
    tell(LeaseMessage::kExit, static_cast<uint32_t>(*exit_code_));
    checkOver();
}

void GuestProcess::finishStreams() {
    const auto keep = shared_from_this();
    for (const auto& pump : pumps_) {
        if (pump) pump->finish();
    }
    // Its container has been deleted and its stand-in is gone: there is no end to wait for.
    if (!request_.lease.valid() && !exit_code_) exit_code_ = proto::kLostExitCode;
    checkOver();
}

void GuestProcess::lost() {
    const auto keep = shared_from_this();
    if (exit_code_) return;  // that it ended is known, and how; the rest of its output may come
    timer_.reset();
    // Never the code of a success.
    exit_code_ = proto::kLostExitCode;
    if (!reported_) tell(LeaseMessage::kLost, 0);
    reported_ = true;
    abort();
}

void GuestProcess::abort() {
    const auto keep = shared_from_this();
    for (size_t i = 0; i < pumps_.size(); ++i) {
        accepts_[i].reset();
        listeners_[i].reset();
        if (const auto pump = std::exchange(pumps_[i], nullptr)) pump->abandon();
    }
    for (UniqueFd& stream : request_.streams) stream.reset();
    timer_.reset();
    if (!committed_) {
        reported_ = true;
        request_.lease.reset();
    }
    checkOver();
}

void GuestProcess::checkOver() {
    // The lease is kept until the stand-in has gone: it must not take its end for our death.
    const bool done = reported_ && !request_.lease.valid() && outputEnded() &&
                      (exit_code_.has_value() || !committed_);
    if (!done || over_) return;
    over_ = true;
    around_.over(*this);
}

}  // namespace arca::runtime
