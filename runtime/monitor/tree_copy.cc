#include "runtime/monitor/tree_copy.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "proto/monitor_protocol.h"
#include "runtime/monitor/ports.h"
#include "runtime/rpc_names.h"

namespace arca::runtime {

using archive::Packed;
using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
namespace wire = com::apple::containerization::sandbox::v3;

namespace {

// For a guest to give up what it is told to.
constexpr std::chrono::milliseconds kAbortPatience{2'000};

}  // namespace

TreeCopy::TreeCopy(Surroundings around, TreeCopyRequest request, Done done)
    : around_(std::move(around)), request_(std::move(request)), done_(std::move(done)) {}

TreeCopy::~TreeCopy() {
    stop_.set();
    if (sender_.joinable()) sender_.join();
}

Result<> TreeCopy::start() {
    ARCA_TRY(ListeningPort port, listenOnFreePort(around_.transport, around_.next_port));
    port_ = port.number;
    listener_ = std::move(port.listener);
    ARCA_TRY(accept_watch_, base::Watch::make(around_.loop, listener_->fd(), EPOLLIN,
                                              [this](uint32_t) { accept(); }));
    call();
    startTimer(around_.patience, "the guest does not fetch what is copied into it");
    return {};
}

void TreeCopy::call() {
    wire::CopyRequest request;
    request.set_direction(wire::CopyRequest::COPY_IN);
    request.set_path(request_.guest_path);
    request.set_create_parents(true);
    request.set_vsock_port(port_);
    request.set_is_archive(true);
    if (request_.fidelity == archive::Fidelity::kExact) request.set_exact(true);
    // No limit of its own: as long as bytes move it goes on, and the timer ends it when they do
    // not.
    around_.channel.call<wire::CopyResponse>(ARCA_CONTEXT_RPC("Copy"), request, std::nullopt,
                                             [weak = weak_from_this()](const Answer& answer) {
                                                 if (const auto self = weak.lock())
                                                     self->answered(answer);
                                             });
}

void TreeCopy::accept() {
    const auto keep = shared_from_this();
    auto connection = listener_->accept();
    if (!connection && connection.error().sysErrno() == EAGAIN) {
        return base::log::warning("a copy: " + connection.error().message());
    }
    accept_watch_.reset();
    listener_.reset();  // one connection, exactly
    timer_.reset();
    if (!connection) return sent(fail(std::move(connection).error()));
    send(std::move(*connection));
}

void TreeCopy::send(UniqueFd connection) {
    // The thread ends before this object does.
    sender_ =
        std::thread([this, weak = weak_from_this(), socket = std::move(connection)]() mutable {
            auto packed = std::make_shared<Result<Packed>>(fail(Code::kInternal, "not packed"));
            {
                base::DataChannel channel(std::move(socket), stop_, around_.patience);
                *packed = pack(channel);
            }
            around_.loop.post([weak, packed] {
                if (const auto self = weak.lock()) self->sent(std::move(*packed));
            });
        });
}

Result<Packed> TreeCopy::pack(base::DataChannel& channel) const {
    const auto sink = [&channel](std::string_view data) { return channel.write(data); };
    struct stat st {};
    if (::fstat(request_.tree.get(), &st) != 0) return failErrno("stat");
    Result<Packed> packed = fail(Code::kUnsupported, "neither a folder nor a regular file");
    if (S_ISDIR(st.st_mode)) {
        ARCA_TRY(const UniqueFd dir,
                 base::openAt(request_.tree.get(), ".", O_RDONLY | O_DIRECTORY));
        packed = archive::packTree(dir.get(), sink, request_.fidelity, request_.limits);
    } else if (S_ISREG(st.st_mode)) {
        ARCA_TRY(const UniqueFd file,
                 base::openAt(AT_FDCWD, base::fdPath(request_.tree.get()), O_RDONLY));
        packed = archive::packFile(file.get(), proto::kCopiedFile, sink, request_.fidelity,
                                   request_.limits);
    }
    if (packed) channel.finishWriting();
    return packed;
}

void TreeCopy::sent(Result<Packed> packed) {
    const auto keep = shared_from_this();
    if (sender_.joinable()) sender_.join();
    sent_ = std::move(packed);
    if (!answered_) {
        startTimer(aborted_ ? kAbortPatience : around_.patience,
                   "the guest does not say that it has what was copied");
    }
    checkOver();
}

void TreeCopy::answered(const Answer& answer) {
    const auto keep = shared_from_this();
    if (answered_) return;  // it came too late
    answered_ = answer ? Result<>() : Result<>(fail(base::Error(answer.error())));
    // It takes no more; or it never came for it.
    if (!answer) stop_.set();
    if (!sent_ && listener_) {
        accept_watch_.reset();
        listener_.reset();
        sent_ = fail(Code::kUnavailable, "the guest did not fetch it");
    }
    checkOver();
}

void TreeCopy::abort() {
    aborted_ = true;
    stop_.set();
    if (listener_) {
        accept_watch_.reset();
        listener_.reset();
        sent_ = fail(Code::kUnavailable, "broken off");
    }
    startTimer(kAbortPatience, "broken off");
}

void TreeCopy::startTimer(std::chrono::milliseconds limit, const char* what) {
    timer_ = base::Timer(around_.loop, limit, [this, what] {
        const auto keep = shared_from_this();
        stop_.set();
        accept_watch_.reset();
        listener_.reset();
        if (!sent_ && !sender_.joinable()) sent_ = fail(Code::kDeadlineExceeded, what);
        if (!answered_) answered_ = fail(Code::kDeadlineExceeded, what);
        checkOver();
    });
}

void TreeCopy::checkOver() {
    if (!sent_ || !answered_ || !done_) return;
    timer_.reset();
    const auto done = std::exchange(done_, nullptr);
    // What the guest says of it counts more than that it stopped reading; what was wrong on this
    // side, more than what it made of the rest.
    const bool broke_off = !*sent_ && sent_->error().code() == Code::kUnavailable;
    if (!*answered_ && (*sent_ || broke_off)) return done(fail(std::move(answered_->error())));
    done(std::move(*sent_));
}

}  // namespace arca::runtime
