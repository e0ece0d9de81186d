#include "vminitd/process_setup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "proto/body_protocol.h"

namespace arca::vminitd {

using base::Code;
using base::Error;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;

namespace {

Result<UniqueFd> sealedPlan(const std::string& plan) {
    UniqueFd file(::memfd_create("arca-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file.valid()) return failErrno("memfd_create");
    ARCA_CHECK(base::writeAll(file.get(), plan));
    if (::lseek(file.get(), 0, SEEK_SET) != 0) return failErrno("seek in the plan");
    if (::fcntl(file.get(), F_ADD_SEALS,
                F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
        return failErrno("seal the plan");
    }
    return file;
}

class Setup : public std::enable_shared_from_this<Setup> {
 public:
    Setup(EventLoop& loop, SetupRequest request) : loop_(loop), request_(std::move(request)) {}

    void start() {
        auto started = sendPlan();
        if (!started) return finish(fail(std::move(started).error()));
        if (request_.body.owner) {
            request_.body.owner->onGone([self = shared_from_this()] {
                self->finish(fail(Code::kUnavailable, "the caller went away"));
            });
        }
    }

 private:
    enum class Step { kPid, kMountedOrReady, kHooks, kDone };

    Result<> sendPlan() {
        ARCA_TRY(const UniqueFd plan, sealedPlan(request_.plan));
        ARCA_TRY(watch_, Watch::make(loop_, request_.body.sync.get(), EPOLLIN,
                                     [self = shared_from_this()](uint32_t) { self->receive(); }));
        ARCA_CHECK(base::sendMessage(request_.body.sync.get(),
                                     proto::encodeBodyMessage(BodyMessage::kPlan),
                                     {plan.get(), request_.gate.get()}));
        // From here the process alone has the listener: with it, the gate ends.
        request_.gate.reset();
        request_.plan.clear();
        return {};
    }

    Result<> send(BodyMessage type) {
        return base::sendMessage(request_.body.sync.get(), proto::encodeBodyMessage(type));
    }

    const char* awaited() const {
        if (step_ == Step::kPid) return "the process was made";
        if (step_ == Step::kHooks) return "its hooks had run";
        return "its set-up was complete";
    }

    void receive() {
        auto message = base::receiveMessage(request_.body.sync.get());
        if (!message) return finish(fail(std::move(message).error()));
        if (!*message) {
            return finish(
                fail(Code::kInternal, std::string("the process ended before ") + awaited()));
        }
        const auto packet = proto::decodeBodyMessage((*message)->data);
        if (!packet) return finish(fail(Code::kInternal, "malformed message from vmexec"));
        if (packet->type == BodyMessage::kFailure) {
            ends_itself_ = true;
            return finish(fail(Code::kInternal, std::string(packet->text), packet->value));
        }
        if (packet->type == BodyMessage::kWarning) {
            base::log::warning(packet->text);
            if (request_.body.owner) request_.body.owner->warning(packet->text);
            return;
        }
        auto handled = handle(*packet, std::move((*message)->fds));
        if (!handled) finish(fail(std::move(handled).error()));
    }

    Result<> handle(const proto::BodyPacket& packet, std::vector<UniqueFd> fds) {
        if (packet.type == BodyMessage::kPid && step_ == Step::kPid) {
            return gotPid(packet.value, fds.empty() ? UniqueFd() : std::move(fds.front()));
        }
        if (packet.type == BodyMessage::kMounted && step_ == Step::kMountedOrReady) {
            return gotMounted();
        }
        if (packet.type == BodyMessage::kReady && step_ == Step::kMountedOrReady) {
            return gotReady(fds.empty() ? UniqueFd() : std::move(fds.front()));
        }
        return fail(Code::kInternal, "vmexec sent message " +
                                         std::to_string(static_cast<uint32_t>(packet.type)) +
                                         " before " + awaited());
    }

    Result<> gotPid(pid_t pid, UniqueFd pidfd) {
        if (pid <= 1) return fail(Code::kInternal, "vmexec reported a pid that cannot be");
        made_.pidfd = std::move(pidfd);
        if (!made_.pidfd.valid()) {
            ARCA_TRY(made_.pidfd, base::openPidfd(pid));
        }
        made_.identity.pid = pid;
        ARCA_TRY(made_.identity.start_time_ticks, base::processStartTime(pid));
        // Only while it lives does the number mean this process and no other.
        ARCA_TRY(const bool ended, base::waitExit(made_.pidfd.get(), std::chrono::milliseconds(0)));
        if (ended) return fail(Code::kInternal, "the process ended before its set-up began");
        ARCA_CHECK(request_.join(pid));
        step_ = Step::kMountedOrReady;
        return send(BodyMessage::kGo);
    }

    Result<> gotMounted() {
        if (!request_.run_hooks || !request_.body.owner) return send(BodyMessage::kHooksRan);
        step_ = Step::kHooks;
        request_.body.owner->runHooks(made_.identity.pid,
                                      [self = shared_from_this()](Result<> ran) {
                                          if (self->step_ != Step::kHooks) return;
                                          self->step_ = Step::kMountedOrReady;
                                          if (ran) ran = self->send(BodyMessage::kHooksRan);
                                          if (!ran) self->finish(fail(std::move(ran).error()));
                                      });
        return {};
    }

    Result<> gotReady(UniqueFd master) {
        ARCA_CHECK(request_.record(made_.identity));
        ARCA_CHECK(send(BodyMessage::kCommit));
        if (request_.body.owner) {
            // Once committed the process is real; a command that has just died cannot undo that.
            auto told = request_.body.owner->created(made_.identity.pid, master.get());
            if (!told) base::log::warning("cannot tell the caller: " + told.error().message());
        }
        finish(std::move(made_));
        return {};
    }

    void finish(Result<MadeProcess> result) {
        if (step_ == Step::kDone) return;
        step_ = Step::kDone;
        const auto keep = shared_from_this();
        watch_.reset();
        if (request_.body.owner) request_.body.owner->onGone(nullptr);
        if (!result) {
            // Stage 1 first: it may be about to make the process whose pid we do not know yet. One
            // that ends by itself is left to: a command would take the signal for the reason, which
            // it has not been told yet.
            const bool stage1_waits = !ends_itself_ && !made_.pidfd.valid();
            if (stage1_waits && request_.body.pidfd.valid()) {
                (void)base::sendSignal(request_.body.pidfd.get(), SIGKILL);
            }
            if (made_.pidfd.valid()) (void)base::sendSignal(made_.pidfd.get(), SIGKILL);
        }
        request_.body = Body();
        const auto done = std::exchange(request_.done, nullptr);
        done(std::move(result));
        request_.join = nullptr;
        request_.record = nullptr;
    }

    EventLoop& loop_;
    SetupRequest request_;
    Watch watch_;
    Step step_ = Step::kPid;
    MadeProcess made_;
    bool ends_itself_ = false;  // it has reported a failure, and exits then
};

}  // namespace

void setUpProcess(EventLoop& loop, SetupRequest request) {
    std::make_shared<Setup>(loop, std::move(request))->start();
}

}  // namespace arca::vminitd
