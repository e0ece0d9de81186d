#include "vminitd/local_daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/process.h"
#include "base/socket.h"
#include "spec/version.h"

namespace arca::vminitd {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr char kAgentFile[] = "agent.json";
constexpr char kRpcSocket[] = "rpc.sock";
constexpr char kAttachSocket[] = "attach.sock";
// After the sockets are gone: how long what has connected may stay silent.
constexpr std::chrono::milliseconds kLastGrace{1'000};
constexpr std::chrono::milliseconds kLockRetry{200};

Result<> replaceStdio() {
    ARCA_TRY(const UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) {
        if (::dup2(null.get(), fd) < 0) return failErrno("dup2");
    }
    return {};
}

// What the caller leaked into us would stay open as long as we live; a lock among it, held.
Result<> closeAllBut(std::vector<int> keep) {
    std::sort(keep.begin(), keep.end());
    unsigned first = 3;
    for (const int fd : keep) {
        const auto number = static_cast<unsigned>(fd);
        if (number > first && ::syscall(SYS_close_range, first, number - 1, 0) != 0) {
            return failErrno("close_range");
        }
        first = number + 1;
    }
    if (::syscall(SYS_close_range, first, ~0U, 0) != 0) return failErrno("close_range");
    return {};
}

}  // namespace

Result<> becomeDaemon(const DaemonOptions& options) {
    ARCA_CHECK(closeAllBut({options.rpc_listener.get(), options.attach_listener.get(),
                            options.lock.get(), options.folder.get()}));
    (void)::setsid();  // fails only for a group leader, which then has a session already
    if (::chdir("/") != 0) return failErrno("chdir /");
    (void)::umask(022);
    ARCA_CHECK(replaceStdio());
    if (::clearenv() != 0) return failErrno("clearenv");
    // Before there are threads: they inherit the mask, and signalfd gets the signal.
    sigset_t blocked;
    (void)::sigemptyset(&blocked);
    for (const int number : {SIGTERM, SIGINT, SIGHUP}) (void)::sigaddset(&blocked, number);
    if (::sigprocmask(SIG_SETMASK, &blocked, nullptr) != 0) return failErrno("sigprocmask");
    if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return failErrno("ignore SIGPIPE");
    return {};
}

LocalDaemon::LocalDaemon(EventLoop& loop, DaemonOptions options, AttachServer& attach,
                         Activity& activity, Serve serve)
    : loop_(loop),
      options_(std::move(options)),
      attach_(attach),
      activity_(activity),
      serve_rpc_(std::move(serve)),
      serve_attach_([this](UniqueFd connection) { attach_.serve(std::move(connection)); }) {}

Result<> LocalDaemon::start() {
    for (const int fd : {options_.rpc_listener.get(), options_.attach_listener.get()}) {
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
            return failErrno("make a listening socket non-blocking");
        }
    }
    ARCA_CHECK(writeAgentFile());
    ARCA_TRY(rpc_watch_, Watch::make(loop_, options_.rpc_listener.get(), EPOLLIN, [this](uint32_t) {
                 acceptAll(options_.rpc_listener, serve_rpc_);
             }));
    ARCA_TRY(attach_watch_,
             Watch::make(loop_, options_.attach_listener.get(), EPOLLIN,
                         [this](uint32_t) { acceptAll(options_.attach_listener, serve_attach_); }));
    sigset_t wanted;
    (void)::sigemptyset(&wanted);
    (void)::sigaddset(&wanted, SIGTERM);
    (void)::sigaddset(&wanted, SIGINT);
    signals_ = UniqueFd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_.valid()) return failErrno("signalfd");
    ARCA_TRY(signal_watch_, Watch::make(loop_, signals_.get(), EPOLLIN, [this](uint32_t) {
                 signalfd_siginfo info{};
                 [[maybe_unused]] const ssize_t n = ::read(signals_.get(), &info, sizeof info);
                 asked_to_ = true;
                 checkIdle();
             }));
    idle_timer_ = Timer(loop_, options_.idle, [this] { checkIdle(); });
    // A descriptor of our own on the lock: the one that was inherited may be shared with the
    // command that started us, and letting go of it is that command's business.
    auto own = base::openAt(options_.folder.get(), "lock", O_RDWR);
    if (!own) return base::fail(std::move(own).error());
    options_.lock = std::move(*own);
    return {};
}

Result<> LocalDaemon::writeAgentFile() {
    ARCA_TRY(const uint64_t start_time, base::processStartTime(::getpid()));
    const nlohmann::json json = {
        {"pid", ::getpid()}, {"start_time", start_time}, {"version", spec::kProjectVersion}};
    return base::replaceFile(options_.folder.get(), kAgentFile, json.dump() + "\n");
}

void LocalDaemon::acceptAll(const UniqueFd& listener, const Serve& serve) {
    while (true) {
        UniqueFd connection(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!connection.valid()) {
            if (errno == EINTR || errno == ECONNABORTED) continue;
            if (errno != EAGAIN) base::log::error("accept: " + base::errnoText(errno));
            return;
        }
        const auto peer = base::peerCredentials(connection.get());
        if (!peer || (peer->uid != 0 && peer->uid != ::geteuid())) {
            base::log::warning("connection refused: peer is another user");
            continue;
        }
        activity_.touch();
        serve(std::move(connection));
    }
}

bool LocalDaemon::quiet(std::chrono::milliseconds for_at_least) const {
    return !activity_.busy() && attach_.connections() == 0 && activity_.idleFor() >= for_at_least;
}

void LocalDaemon::checkIdle() {
    using std::chrono::milliseconds;
    const milliseconds limit =
        leaving_ ? kLastGrace : (asked_to_ ? milliseconds(0) : milliseconds(options_.idle));
    const auto again = [this](milliseconds pause) {
        idle_timer_ = Timer(loop_, std::max(pause, milliseconds(10)), [this] { checkIdle(); });
    };
    if (!quiet(limit)) {
        const milliseconds left = limit - activity_.idleFor();
        return again(left > milliseconds(0) ? left : milliseconds(100));
    }
    if (leaving_) return loop_.stop();
    // Held by a command that is about to connect (or by an agent that is leaving): not now.
    if (::flock(options_.lock.get(), LOCK_EX | LOCK_NB) != 0) return again(kLockRetry);
    leave();
}

// The lock is held.
void LocalDaemon::leave() {
    leaving_ = true;
    // Only our own sockets: the folder may have been taken over since.
    const auto text = base::readFile(kAgentFile, 4096, options_.folder.get());
    const auto json = nlohmann::json::parse(text.value_or("{}"), nullptr, false);
    if (json.is_object() && json.value("pid", 0) == ::getpid()) {
        for (const char* name : {kRpcSocket, kAttachSocket, kAgentFile}) {
            (void)::unlinkat(options_.folder.get(), name, 0);
        }
    }
    const auto before = activity_.idleFor();
    acceptAll(options_.attach_listener, serve_attach_);
    acceptAll(options_.rpc_listener, serve_rpc_);
    const bool somebody_came = activity_.idleFor() < before || attach_.connections() > 0;
    attach_.close();
    rpc_watch_.reset();
    attach_watch_.reset();
    options_.rpc_listener.reset();
    options_.attach_listener.reset();
    (void)::flock(options_.lock.get(), LOCK_UN);
    if (!somebody_came && !activity_.busy()) return loop_.stop();
    checkIdle();
}

}  // namespace arca::vminitd
