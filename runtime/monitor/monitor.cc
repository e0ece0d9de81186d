#include "runtime/monitor/monitor.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "proto/monitor_protocol.h"
#include "runtime/kvm_verdict.h"
#include "runtime/rpc_names.h"
#include "sandbox_context.pb.h"

namespace arca::runtime {

using base::Code;
using base::Error;
using base::fail;
using base::Result;
using base::UniqueFd;
namespace wire = com::apple::containerization::sandbox::v3;

namespace {

constexpr std::chrono::milliseconds kSyncLimit{2'000};
constexpr std::chrono::milliseconds kIdleLimit{15'000};
// Longer than the machine itself waits for the part whose end is the reason (machine.cc).
constexpr std::chrono::milliseconds kReasonPause{1000};
constexpr std::chrono::milliseconds kLostLimit{1'000};
constexpr std::chrono::milliseconds kDrainLimit{10'000};
constexpr std::chrono::milliseconds kTimeInterval{30'000};
constexpr std::chrono::milliseconds kDialLimit{2'000};
// Where KVM works, a guest answers within one second.
constexpr std::chrono::milliseconds kProofLimit{8'000};
// Ports of streams: a range that is used up and begun again, so that a late connection of a guest
// for an old stream does not meet a new one.
constexpr uint32_t kPortRange = 1U << 20U;

}  // namespace

Monitor::Monitor(base::EventLoop& loop, MonitorConfig config, UniqueFd dir, UniqueFd listener)
    : loop_(loop),
      config_(std::move(config)),
      dir_(std::move(dir)),
      listener_(std::move(listener)) {}

Monitor::~Monitor() {
    stop_dialling_ = true;
    if (dialler_.joinable()) dialler_.join();
}

Result<> Monitor::start() {
    ARCA_CHECK(serve());
    idle_timer_ = base::Timer(loop_, kIdleLimit, [this] { leaveIfUnused(); });
    std::string address = config_.address;
    if (address == "vm") {
        if (config_.share) {
            ARCA_TRY(Share share, Share::make(dir_.get()));
            share_ = std::move(share);
        }
        proving_ = config_.accel == "auto";
        if (proving_) config_.accel = "kvm";
        ARCA_TRY(address, takeVsock());
        if (config_.card) makeCard();
        ARCA_CHECK(startMachine());
        if (proving_) {
            proof_timer_ = base::Timer(loop_, kProofLimit, [this] {
                fallBack("no answer in " + std::to_string(kProofLimit.count()) + " ms");
            });
        }
    }
    ARCA_TRY(transport_, base::openTransport(address));
    const auto limit = config_.boot_limit + (proving_ ? kProofLimit : std::chrono::milliseconds(0));
    dialler_ = std::thread([this, limit] { dial(limit); });
    return {};
}

Result<std::string> Monitor::takeVsock() {
    const std::string hybrid =
        "hvsock://" + base::fdPath(dir_.get()) + "/" + proto::kMonitorVsockSocket;
    if (config_.vsock == "user") return hybrid;
    auto taken = takeKernelVsock();
    if (!taken) {
        if (config_.vsock == "kernel") return fail(std::move(taken).error());
        base::log::debug(taken.error().message() + ": arca-vsock is used");
        return hybrid;
    }
    vsock_ = std::make_unique<KernelVsock>(std::move(*taken));
    // Ports are those of the whole machine, not of this sandbox.
    next_port_ += randomNumber(kPortRange);
    const std::string address = "vsock://" + std::to_string(vsock_->cid);
    ARCA_CHECK(base::replaceFile(dir_.get(), proto::kMonitorAddressFile, address));
    return address;
}

// Without one, frames take the longer way over vsock.
void Monitor::makeCard() {
    auto made = NetworkCard::make();
    if (made) {
        card_ = std::move(*made);
    } else {
        base::log::info("no network card: " + made.error().message());
    }
}

Result<> Monitor::startMachine() {
    ARCA_TRY(machine_,
             Machine::start(loop_, config_, dir_.get(), share_ ? share_->servedPath() : "",
                            {vsock_.get(), card_.get()},
                            [this](const std::string& why) { machineFailed(why); }));
    return {};
}

void Monitor::machineFailed(const std::string& why) {
    if (proving_) return fallBack(why);
    lose("the sandbox's " + why);
}

void Monitor::fallBack(const std::string& why) {
    if (!proving_ || state_ != State::kBooting) return;
    proving_ = false;
    proof_timer_.reset();
    base::log::info("KVM does not boot the guest (" + why + "): it is emulated from now on");
    writeKvmVerdict(config_.kvm_verdict, false);
    config_.accel = "tcg";
    machine_->stop([this] {
        // By a task: the machine is what tells us.
        loop_.post([this] {
            if (state_ != State::kBooting) return;
            machine_.reset();
            (void)::unlinkat(dir_.get(), proto::kMonitorVsockSocket, 0);
            auto started = vsock_ ? reopen(*vsock_) : Result<>();
            if (started) started = startMachine();
            if (!started) lose(started.error().message());
        });
    });
}

Result<> Monitor::serve() {
    ARCA_TRY(listener_watch_, base::Watch::make(loop_, listener_.get(), EPOLLIN,
                                                [this](uint32_t) { acceptSession(); }));
    return {};
}

void Monitor::acceptSession() {
    UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!peer.valid()) return;
    // The folder is 0700; this is for the day when it is not.
    const auto who = base::peerCredentials(peer.get());
    if (!who || (who->uid != 0 && who->uid != ::geteuid())) return;
    auto session = std::make_shared<AttachSession>(*this, std::move(peer));
    if (!session->start(loop_)) return;
    sessions_.insert(session);
}

void Monitor::drop(AttachSession& session) {
    sessions_.erase(session.shared_from_this());
    leaveIfUnused();
}

// ---- reaching the guest ----

// On a thread of its own: the only thing here that blocks.
void Monitor::dial(std::chrono::milliseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    std::chrono::milliseconds pause{10};
    while (true) {
        auto connection = transport_->dial(
            base::kAgentPort, std::min<std::chrono::milliseconds>(kDialLimit, config_.boot_limit));
        // Only a machine that we boot gets time to come up.
        const bool late = config_.address != "vm" || std::chrono::steady_clock::now() >= deadline;
        if (stop_dialling_) return;
        if (connection || late) {
            auto handed = std::make_shared<Result<UniqueFd>>(std::move(connection));
            loop_.post([this, handed] { dialled(std::move(*handed)); });
            return;
        }
        std::this_thread::sleep_for(pause);  // nothing tells when a port begins to be listened on
        if (pause < std::chrono::milliseconds(40)) pause += std::chrono::milliseconds(10);
    }
}

void Monitor::dialled(Result<UniqueFd> connection) {
    if (dialler_.joinable()) dialler_.join();
    if (state_ != State::kBooting) return;
    if (!connection) {
        std::string why = "the guest does not answer: " + connection.error().message();
        if (machine_ && !machine_->lastWords().empty()) why += ": " + machine_->lastWords();
        return lose(why);
    }
    if (std::exchange(proving_, false)) {
        proof_timer_.reset();
        writeKvmVerdict(config_.kvm_verdict, true);
    }
    auto channel = GrpcChannel::open(loop_, std::move(*connection), [this](const Error& error) {
        // If a part of the machine has ended, that is the reason, and word of it is on its way.
        const auto pause = machine_ ? kReasonPause : std::chrono::milliseconds(0);
        lost_timer_ = base::Timer(loop_, pause, [this, why = error.message()] {
            lose("the connection to the guest broke: " + why);
        });
    });
    if (!channel) return lose(channel.error().message());
    channel_ = std::move(*channel);
    setUpGuest();
}

template <typename Response, typename Request>
void Monitor::setUpCall(const char* path, const Request& request, std::function<void()> next) {
    channel_->call<Response>(
        path, request, config_.call_limit,
        [this, path, next = std::move(next)](const Result<Response>& done) {
            if (state_ != State::kBooting) return;
            if (done) return next();
            lose(std::string("setting up the guest: ") + path + ": " + done.error().message());
        });
}

// What the host library of the protocol does first in each guest.
void Monitor::setUpGuest() {
    if (machine_) return mountShare();
    wire::IpLinkSetRequest request;
    request.set_interface("lo");
    request.set_up(true);
    channel_->call<wire::IpLinkSetResponse>(
        ARCA_CONTEXT_RPC("IpLinkSet"), request, config_.call_limit,
        [this](const Result<wire::IpLinkSetResponse>& done) {
            if (state_ != State::kBooting) return;
            // An agent that is not the first process of its machine leaves the machine alone.
            if (done || done.error().code() == Code::kUnsupported) return guestIsReady();
            lose("setting up the guest: " + done.error().message());
        });
}

void Monitor::mountShare() {
    // Both at once: neither needs the other.
    auto left = std::make_shared<int>(share_ ? 2 : 1);
    const auto one_done = [this, left] {
        if (--*left == 0) guestIsReady();
    };
    wire::IpLinkSetRequest link;
    link.set_interface("lo");
    link.set_up(true);
    setUpCall<wire::IpLinkSetResponse>(ARCA_CONTEXT_RPC("IpLinkSet"), link, one_done);
    if (!share_) return;
    wire::MountRequest mount;
    mount.set_type("virtiofs");
    mount.set_source(proto::kShareTag);
    mount.set_destination(proto::kGuestShareFolder);
    setUpCall<wire::MountResponse>(ARCA_CONTEXT_RPC("Mount"), mount, one_done);
}

void Monitor::guestIsReady() {
    state_ = State::kReady;
    base::log::debug("the guest is ready");
    if (machine_) setTime();
    for (const Answer& answer : std::exchange(waiting_, {})) answer({});
}

// A guest's clock stands still while its VM does.
void Monitor::setTime() {
    if (!channel_) return;
    timeval now{};
    (void)::gettimeofday(&now, nullptr);
    wire::SetTimeRequest request;
    request.set_sec(now.tv_sec);
    request.set_usec(static_cast<int32_t>(now.tv_usec));
    channel_->call<wire::SetTimeResponse>(
        ARCA_CONTEXT_RPC("SetTime"), request, config_.call_limit,
        [](const Result<wire::SetTimeResponse>& done) {
            if (!done) base::log::warning("set the guest's time: " + done.error().message());
        });
    time_timer_ = base::Timer(loop_, kTimeInterval, [this] { setTime(); });
}

void Monitor::whenReady(std::function<void(const Result<>&)> then) {
    switch (state_) {
        case State::kBooting:
            return waiting_.push_back(std::move(then));
        case State::kReady:
            return then({});
        case State::kLost:
            return then(fail(Error(*failure_)));
        case State::kLeaving:
            return then(fail(Code::kUnavailable, "the sandbox is being taken down"));
    }
}

// ---- processes ----

std::optional<uint32_t> Monitor::nextPort() {
    const uint32_t port = next_port_++;
    if (next_port_ == base::kFirstStdioPort + kPortRange) next_port_ = base::kFirstStdioPort;
    return port;
}

Result<> Monitor::share(const std::string& container, const std::string& name, int tree) {
    if (!share_) return fail(Code::kUnsupported, "this sandbox shares no directory of the host");
    containers_.insert(container);
    return share_->add(container, name, tree);
}

Result<std::shared_ptr<TreeCopy>> Monitor::copy(TreeCopyRequest request, TreeCopy::Done done) {
    if (!channel_) return fail(Code::kUnavailable, "the sandbox was lost");
    TreeCopy::Surroundings around{loop_, *transport_, *channel_, [this] { return nextPort(); },
                                  config_.call_limit};
    auto copy = std::make_shared<TreeCopy>(std::move(around), std::move(request), std::move(done));
    ARCA_CHECK(copy->start());
    return copy;
}

Result<std::shared_ptr<GuestProcess>> Monitor::makeProcess(GuestProcessRequest request) {
    GuestProcess::Surroundings around{loop_,
                                      *transport_,
                                      [this] { return channel_.get(); },
                                      [this] { return nextPort(); },
                                      [this](const std::string& why) { lose(why); },
                                      [this](GuestProcess& process) { over(process); }};
    auto process = std::make_shared<GuestProcess>(std::move(around), std::move(request));
    ARCA_CHECK(process->listen());
    if (process->isInit()) containers_.insert(process->container());
    processes_.insert(process);
    return process;
}

void Monitor::takeBack(const std::shared_ptr<GuestProcess>& process) {
    processes_.erase(process);
    process->abort();
    const std::string container = process->container();
    const bool init = process->isInit();
    const auto after = [this, container, init] {
        if (init && share_) share_->remove(container);
        if (init) containers_.erase(container);
        if (init) networks_.erase(container);
        leaveIfUnused();
    };
    if (!channel_) return after();
    wire::DeleteProcessRequest request;
    request.set_id(process->process());
    request.set_containerid(container);
    // Perhaps the command got as far as creating it, perhaps not: an unknown one is no error.
    channel_->call<wire::DeleteProcessResponse>(
        ARCA_CONTEXT_RPC("DeleteProcess"), request, config_.call_limit,
        [after](const Result<wire::DeleteProcessResponse>&) { after(); });
}

void Monitor::over(GuestProcess& process) {
    // Not here and now: this may be called from inside the process.
    loop_.post([this, keep = process.shared_from_this()] {
        processes_.erase(keep);
        if (state_ == State::kLeaving && processes_.empty()) return leave();
        leaveIfUnused();
    });
}

Result<> Monitor::attachNetwork(const std::string& container, UniqueFd name_space,
                                std::function<void(Result<size_t>)> then) {
    if (state_ != State::kReady || containers_.count(container) == 0) {
        return fail(Code::kFailedPrecondition, "no such container in the guest");
    }
    auto& network = networks_[container];
    if (!network) {
        ARCA_TRY(const UniqueFd own, base::openAt(AT_FDCWD, "/proc/self/ns/net", O_RDONLY));
        ARCA_TRY(const bool shared, base::isSameFile(own.get(), name_space.get()));
        if (shared) {
            networks_.erase(container);
            return fail(Code::kInvalidArgument, "the network namespace is this host's own");
        }
        auto started = GuestNetwork::start({loop_, *transport_, config_.call_limit, card_.get()},
                                           std::move(name_space));
        if (!started) {
            networks_.erase(container);
            return fail(std::move(started).error());
        }
        network = std::move(*started);
    }
    network->attach(std::move(then));
    return {};
}

void Monitor::release(const std::string& container, const std::shared_ptr<AttachSession>& session) {
    if (share_) share_->remove(container);
    containers_.erase(container);
    networks_.erase(container);
    if (!containers_.empty()) return session->released();
    // The answer comes when nothing of the sandbox is left.
    releasing_.push_back(session);
    if (state_ != State::kLeaving) leave();
}

// ---- the end ----

void Monitor::lose(const std::string& why) {
    if (state_ == State::kLost || state_ == State::kLeaving) return;
    state_ = State::kLost;
    stop_dialling_ = true;
    failure_ = Error(Code::kUnavailable, why);
    base::log::error(why);
    auto written = base::replaceFile(dir_.get(), proto::kMonitorFailureFile, why + "\n");
    if (!written) base::log::warning(written.error().message());
    time_timer_.reset();
    networks_.clear();
    // By a task: the channel may be what tells us.
    loop_.post([channel = std::shared_ptr<GrpcChannel>(std::move(channel_))] {});
    if (machine_) machine_->stop({});
    for (const Answer& answer : std::exchange(waiting_, {})) answer(fail(Error(*failure_)));
    const auto processes = processes_;
    for (const auto& process : processes) process->lost();
    const auto sessions = sessions_;
    for (const auto& session : sessions) session->sandboxLost(why);
    leaveIfUnused();
}

void Monitor::leaveIfUnused() {
    if (state_ == State::kLeaving) return;
    if (!sessions_.empty() || !processes_.empty()) return;
    const bool lost = state_ == State::kLost;
    if (!lost && !containers_.empty()) return;
    // One that is lost stays for a moment, to tell why to a command that is on its way.
    idle_timer_ = base::Timer(loop_, lost ? kLostLimit : kIdleLimit, [this, lost] {
        if (sessions_.empty() && processes_.empty() && (lost || containers_.empty())) leave();
    });
}

void Monitor::leave() {
    const bool first = state_ != State::kLeaving;
    const bool was_lost = state_ == State::kLost;
    state_ = State::kLeaving;
    stop_dialling_ = true;
    time_timer_.reset();
    idle_timer_.reset();
    if (first && !processes_.empty()) {
        // Streams whose readers are slow still have bytes here; the others end at once.
        const auto processes = processes_;
        for (const auto& process : processes) process->finishStreams();
        leave_timer_ = base::Timer(loop_, kDrainLimit, [this] {
            for (const auto& process : std::exchange(processes_, {})) process->abort();
            leave();
        });
        return;
    }
    if (!processes_.empty()) return;
    leave_timer_.reset();
    networks_.clear();
    const auto stop_machine = [this] {
        channel_.reset();
        if (!machine_) return finish();
        machine_->stop([this] { finish(); });
    };
    if (!channel_ || was_lost) return loop_.post(stop_machine);
    channel_->call<wire::SyncResponse>(
        ARCA_CONTEXT_RPC("Sync"), wire::SyncRequest(), kSyncLimit,
        [this, stop_machine](const Result<wire::SyncResponse>&) { loop_.post(stop_machine); });
}

void Monitor::finish() {
    for (const char* name : {proto::kMonitorAttachSocket, proto::kMonitorVsockSocket}) {
        (void)::unlinkat(dir_.get(), name, 0);
    }
    listener_watch_.reset();
    listener_.reset();
    for (const auto& session : std::exchange(releasing_, {})) session->released();
    loop_.stop();
}

}  // namespace arca::runtime
