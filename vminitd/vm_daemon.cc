#include "vminitd/vm_daemon.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "base/files.h"
#include "base/socket.h"
#include "base/transport.h"
#include "spec/version.h"
#include "vminitd/activity.h"
#include "vminitd/agent.h"
#include "vminitd/cgroup_fs.h"
#include "vminitd/environment.h"
#include "vminitd/guest_hooks.h"
#include "vminitd/rpc_server.h"
#include "vminitd/supervisor.h"
#include "vminitd/vm_body.h"
#include "vminitd/vm_modules.h"
#include "vminitd/vm_power.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::chrono::milliseconds kDriverPause{2'000};
// Beside the cgroups of containers, whose ids have no such character.
constexpr char kServiceFolder[] = "/@service";
// More would save nothing here and cost memory: each has its own heap.
constexpr int kMostHeaps = 2;

bool isFirstProcess() {
    return ::getpid() == 1;
}

// Log lines go to the console without ever waiting for it. False: there is none.
bool logToConsole() {
    const UniqueFd console(::open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    return console.valid() && ::dup2(console.get(), STDERR_FILENO) >= 0;
}

// Nobody reads or writes 0 and 1. Where the console's driver is a module, such as that of hvc0, log
// lines go to the kernel's log for the time being.
void useConsole() {
    // A kernel without a console has left all three closed: nothing else may get these numbers.
    int fd = -1;
    do fd = ::open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    const UniqueFd null(fd);
    if (null.valid()) {
        for (const int standard : {STDIN_FILENO, STDOUT_FILENO}) (void)::dup2(fd, standard);
    }
    if (logToConsole()) return;
    const UniqueFd log(::open("/dev/kmsg", O_WRONLY | O_CLOEXEC));
    if (log.valid()) (void)::dup2(log.get(), STDERR_FILENO);
}

// Before there are threads, which inherit the mask.
Result<> blockSignals() {
    sigset_t blocked;
    (void)::sigemptyset(&blocked);
    for (const int number : {SIGCHLD, SIGTERM, SIGINT}) (void)::sigaddset(&blocked, number);
    if (::sigprocmask(SIG_SETMASK, &blocked, nullptr) != 0) return failErrno("sigprocmask");
    if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return failErrno("ignore SIGPIPE");
    return {};
}

std::map<std::string, std::string> inheritedEnvironment() {
    std::map<std::string, std::string> out;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string text = *entry;
        const size_t equals = text.find('=');
        if (equals != std::string::npos && equals > 0) {
            out[text.substr(0, equals)] = text.substr(equals + 1);
        }
    }
    return out;
}

// Of a Unix socket. That of a vsock connection was looked at when it was accepted: containers share
// the agent's vsock, and only the host's side of it may speak to the agent.
Result<> checkPeer(int fd) {
    int domain = 0;
    socklen_t size = sizeof domain;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
        return failErrno("getsockopt SO_DOMAIN");
    }
    if (domain == AF_VSOCK) return {};
    ARCA_TRY(const base::PeerCredentials peer, base::peerCredentials(fd));
    if (peer.uid == 0 || peer.uid == ::geteuid()) return {};
    return fail(Code::kPermissionDenied, "peer is another user");
}

// Takes the host's connections to the agent's port.
class Acceptor {
 public:
    Acceptor(EventLoop& loop, RpcServer& rpc, std::unique_ptr<base::Listener> listener)
        : loop_(loop), rpc_(rpc), listener_(std::move(listener)) {}

    Result<> start() {
        ARCA_TRY(watch_,
                 Watch::make(loop_, listener_->fd(), EPOLLIN, [this](uint32_t) { acceptOne(); }));
        return {};
    }

    // No connection is taken from now on.
    void stop() {
        pause_ = Timer();
        watch_.reset();
    }

 private:
    void acceptOne() {
        auto connection = listener_->accept();
        if (!connection && connection.error().sysErrno() == EAGAIN) {
            return base::log::warning(connection.error().message());
        }
        if (!connection) {
            base::log::error(connection.error().message());
            // Out of descriptors or memory, most likely: they come back, but not at once.
            watch_.change(0);
            pause_ = Timer(loop_, kAcceptPause, [this] { watch_.change(EPOLLIN); });
            return;
        }
        const auto allowed = checkPeer(connection->get());
        if (!allowed) {
            return base::log::warning("connection refused: " + allowed.error().message());
        }
        rpc_.serve(std::move(*connection));
    }

    EventLoop& loop_;
    RpcServer& rpc_;
    std::unique_ptr<base::Listener> listener_;
    Watch watch_;
    Timer pause_;
};

// SIGTERM, and SIGINT, which is ctrl-alt-del in a VM.
class EndSignals {
 public:
    Result<> start(EventLoop& loop, std::function<void()> end) {
        sigset_t wanted;
        (void)::sigemptyset(&wanted);
        (void)::sigaddset(&wanted, SIGTERM);
        (void)::sigaddset(&wanted, SIGINT);
        fd_ = UniqueFd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
        if (!fd_.valid()) return failErrno("signalfd");
        ARCA_TRY(watch_,
                 Watch::make(loop, fd_.get(), EPOLLIN, [this, end = std::move(end)](uint32_t) {
                     signalfd_siginfo info{};
                     if (::read(fd_.get(), &info, sizeof info) > 0) end();
                 }));
        return {};
    }

 private:
    UniqueFd fd_;
    Watch watch_;
};

Result<> prepareProcess(const VmOptions& options) {
    (void)::mallopt(M_ARENA_MAX, kMostHeaps);
    (void)::umask(022);
    if (isFirstProcess()) {
        powerOffOnCrash();
        ARCA_CHECK(bootMounts());
        useConsole();
    } else if (::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
        return failErrno("become a subreaper");
    }
    ARCA_CHECK(base::log::setUp({.path = "",
                                 .format = base::log::Format::kConsole,
                                 .level = options.log_level,
                                 .label = "vminitd"}));
    return blockSignals();
}

}  // namespace

Result<> runVmAgent(const VmOptions& options) {
    ARCA_CHECK(prepareProcess(options));
    const bool first = isFirstProcess();
    base::log::info(std::string("vminitd ") + spec::kProjectVersion);
    VmModules modules(first ? kVmModules : "");
    modules.loadTransport();
    ARCA_TRY(const auto transport, base::openTransport(options.transport));
    // From here on the host's connections wait to be served instead of being refused.
    ARCA_TRY(auto listener, transport->listen(base::kAgentPort));
    if (first) bootLimits();

    RealCgroupFs cgroup_fs;
    ARCA_TRY(const auto cgroups, detectCgroups(cgroup_fs));
    ARCA_TRY(const auto loop, EventLoop::make());
    ARCA_TRY(const auto supervisor, Supervisor::make(*loop));
    ARCA_CHECK(base::makeDirs(options.state_root, 0700));
    ARCA_TRY(UniqueFd state_root, base::openAt(AT_FDCWD, options.state_root, O_PATH | O_DIRECTORY));
    Environment environment(inheritedEnvironment());
    const ServiceHost services{
        .loop = *loop,
        .supervisor = *supervisor,
        .cgroups = *cgroups,
        .transport = *transport,
        .environment = environment,
        .cgroup_prefix = first ? kVmServiceCgroups : options.cgroup_prefix + kServiceFolder};
    const GuestHooks hooks(services,
                           {.cgroup_procs = first ? kVmHookProcs : "",
                            .folder = options.hooks_dir.value_or(first ? kVmHooksDir : "")});
    ARCA_TRY(const auto bodies,
             VmBodySource::make(*loop, *transport, environment, hooks, modules, options.vmexec));
    Agent agent(*loop, *cgroups, cgroup_fs, *bodies,
                Agent::Config{.state_root = options.state_root,
                              .cgroup_prefix = options.cgroup_prefix,
                              .record_folder = "",
                              .dials_stdio = true,
                              .commands_forget_execs = false,
                              .owns_container_folder = true,
                              .supervisor = supervisor.get(),
                              .hooks = &hooks},
                std::move(state_root));
    VmPower power(*loop, agent);
    Activity activity;
    RpcServer rpc(
        {.loop = *loop,
         .agent = agent,
         .environment = environment,
         .activity = activity,
         .power = first ? &power : nullptr,
         .host = transport.get(),
         .owns_machine = first,
         .wait_for_drivers = [&modules](const DriverNeed& need) { modules.waitLoaded(need); },
         .containers = options.state_root});
    Acceptor acceptor(*loop, rpc, std::move(listener));
    ARCA_CHECK(acceptor.start());
    EndSignals signals;
    std::thread ending;
    ARCA_CHECK(signals.start(*loop, [&, first] {
        if (first) return power.shutDown();
        if (ending.joinable()) return;
        acceptor.stop();
        ending = std::thread([&] {
            rpc.shutDown();
            loop->post([&] { loop->stop(); });
        });
    }));
    base::log::info("serving " + transport->address());
    if (first) {
        modules.afterAll([] {
            (void)logToConsole();  // to the one that is preferred, once it is there
            mountBinfmtMisc();
        });
    }
    modules.loadRest(*loop, kDriverPause);
    loop->run();
    if (ending.joinable()) ending.join();
    return {};
}

}  // namespace arca::vminitd
