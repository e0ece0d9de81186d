#include "vminitd/service.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/log.h"
#include "base/pipe.h"
#include "base/process.h"
#include "base/signals.h"
#include "base/socket.h"
#include "vminitd/cgroup_removal.h"

namespace arca::vminitd {

using base::Code;
using base::Error;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::chrono::milliseconds kCleanUpLimit{2'000};
constexpr std::chrono::milliseconds kFirstPause{1};
constexpr std::chrono::milliseconds kLongestPause{100};

// What the agent reads must not hold it up.
Result<base::Pipe> makePipe() {
    ARCA_TRY(base::Pipe pipe, base::makePipe());
    if (::fcntl(pipe.read_end.get(), F_SETFL, O_NONBLOCK) != 0) {
        return failErrno("set O_NONBLOCK");
    }
    return pipe;
}

// A file instead of a pipe: nobody has to stay and feed it.
Result<UniqueFd> stateFile(const std::string& state) {
    UniqueFd file(::memfd_create("arca-state", MFD_CLOEXEC));
    if (!file.valid()) return failErrno("memfd_create");
    ARCA_CHECK(base::writeAll(file.get(), state));
    if (::lseek(file.get(), 0, SEEK_SET) != 0) return failErrno("seek in the state");
    return file;
}

std::string howItEnded(int code) {
    constexpr int kSignalled = 128;
    const std::string text = "exit status " + std::to_string(code);
    return code <= kSignalled ? text : text + " (" + base::signalName(code - kSignalled) + ")";
}

}  // namespace

Service::Service(const ServiceHost& host, ServicePlan plan)
    : host_(host),
      plan_(std::move(plan)),
      log_(plan_.hook.service->name + "@" + plan_.container_id) {}

// ---- its start ----

void Service::start(std::function<void(Result<>)> ready) {
    ready_ = std::move(ready);
    auto launched = launch();
    if (!launched) return failStart(std::move(launched).error());
    awaitReadiness();
}

Result<> Service::launch() {
    ARCA_CHECK(host_.cgroups.create(plan_.cgroup));
    ARCA_TRY(const UniqueFd in, stateFile(plan_.state));
    ARCA_TRY(base::Pipe out, makePipe());
    output_ = std::move(out.read_end);
    base::Pipe ready;
    if (plan_.hook.service->ready == spec::HookService::Ready::kFd) {
        ARCA_TRY(ready, makePipe());
        ready_fd_ = std::move(ready.read_end);
    }
    ARCA_CHECK(execute(in.get(), out.write_end.get(), ready.write_end.get()));
    return watchOutput();
}

Result<> Service::execute(int in, int out, int ready) {
    const spec::Hook& hook = plan_.hook;
    const std::vector<std::string> args = hook.args.empty() ? std::vector{hook.path} : hook.args;
    const std::vector<std::string> env = environment();
    const std::vector<char*> argv = base::execPointers(args);
    const std::vector<char*> envp = base::execPointers(env);
    std::vector<UniqueFd> cgroups;
    std::vector<int> cgroup_fds;
    for (const CgroupDir& dir : plan_.cgroup) {
        ARCA_TRY(UniqueFd file, base::openAt(AT_FDCWD, dir.path + "/cgroup.procs", O_WRONLY));
        cgroup_fds.push_back(file.get());
        cgroups.push_back(std::move(file));
    }
    ARCA_TRY(const base::StartedProgram started,
             base::startProgram({.program_fd = -1,
                                 .stdio = {in, out, out},
                                 .first_closed = 3,
                                 .argv = argv.data(),
                                 .envp = envp.data(),
                                 .oom_score = base::OomScore::kPlain,
                                 .path = hook.path.c_str(),
                                 .third = ready,
                                 .network_namespace = plan_.network_namespace,
                                 .cgroups = cgroup_fds.data(),
                                 .cgroup_count = cgroup_fds.size(),
                                 .new_session = true}));
    // One that could not be executed has exited; the supervisor reaps it.
    if (started.error != 0) return failErrno(started.step + (" " + hook.path), started.error);
    running_ = true;
    host_.supervisor.expect(started.pid, [self = shared_from_this()](const ExitStatus& status) {
        self->exited(status.code);
    });
    ARCA_TRY(pidfd_, base::openPidfd(started.pid));
    base::log::debug("service started name=" + name() + " container=" + plan_.container_id +
                     " pid=" + std::to_string(started.pid));
    return {};
}

std::vector<std::string> Service::environment() const {
    std::vector<std::string> env =
        environmentFor(plan_.hook.env.value_or(host_.environment.all()), plan_.container_id);
    constexpr std::string_view kReady = "ARCA_READY_FD=";
    std::erase_if(env, [kReady](const std::string& entry) { return entry.starts_with(kReady); });
    if (plan_.hook.service->ready == spec::HookService::Ready::kFd) {
        env.push_back(std::string(kReady) + std::to_string(kReadyFd));
    }
    return env;
}

Result<> Service::watchOutput() {
    ARCA_TRY(output_watch_, Watch::make(host_.loop, output_.get(), EPOLLIN, [this](uint32_t) {
                 const auto keep = shared_from_this();
                 readOutput();
             }));
    if (!ready_fd_.valid()) return {};
    ARCA_TRY(ready_watch_, Watch::make(host_.loop, ready_fd_.get(), EPOLLIN, [this](uint32_t) {
                 const auto keep = shared_from_this();
                 readReadyFd();
             }));
    return {};
}

void Service::awaitReadiness() {
    const auto limit = plan_.hook.timeout ? std::chrono::seconds(*plan_.hook.timeout) : kReadyLimit;
    limit_ = Timer(host_.loop, limit, [this, limit] {
        const auto keep = shared_from_this();
        std::string text = "not ready within " + std::to_string(limit.count()) + " s";
        if (said_nothing_) text += ", its ready descriptor was closed without a newline";
        failStart(withTail(Error(Code::kDeadlineExceeded, std::move(text))));
    });
    switch (plan_.hook.service->ready) {
        case spec::HookService::Ready::kExecuted:
            return becomeReady();
        case spec::HookService::Ready::kFd:
            return;
        case spec::HookService::Ready::kPort:
        case spec::HookService::Ready::kSocket:
            return look(kFirstPause);
    }
}

void Service::look(std::chrono::milliseconds pause) {
    if (state_ != State::kStarting) return;
    auto found = answers();
    if (!found) return failStart(std::move(found).error());
    if (*found) return becomeReady();
    look_timer_ = Timer(host_.loop, pause, [this, pause] {
        const auto keep = shared_from_this();
        look(std::min(2 * pause, kLongestPause));
    });
}

Result<bool> Service::answers() {
    const spec::HookService& service = *plan_.hook.service;
    if (service.ready == spec::HookService::Ready::kPort) {
        return host_.transport.isListened(service.port);
    }
    return base::isUnixSocketListened(service.socket);
}

void Service::readReadyFd() {
    std::array<char, 64> buffer{};
    const ssize_t n = ::read(ready_fd_.get(), buffer.data(), buffer.size());
    if (n < 0) return;
    const std::string_view text(buffer.data(), static_cast<size_t>(n));
    if (text.find('\n') != std::string_view::npos) return becomeReady();
    if (n > 0) return;
    // It may be ending just now, which says more.
    said_nothing_ = true;
    ready_watch_.reset();
}

void Service::becomeReady() {
    if (state_ != State::kStarting) return;
    state_ = State::kReady;
    limit_.reset();
    look_timer_.reset();
    // Its end stays open: a service that says more must not die of it.
    ready_watch_.reset();
    base::log::debug("service ready name=" + name() + " container=" + plan_.container_id);
    std::exchange(ready_, nullptr)({});
}

void Service::failStart(Error error) {
    if (state_ != State::kStarting) return;
    state_ = State::kOver;
    limit_.reset();
    look_timer_.reset();
    ready_watch_.reset();
    cleanUp([self = shared_from_this(), error = std::move(error)] {
        std::exchange(self->ready_, nullptr)(fail(error));
        self->stopped();
    });
}

Error Service::withTail(Error error) const {
    const std::string tail = log_.tail();
    if (tail.empty()) return error;
    return {error.code(), error.message() + "; its last lines: " + tail};
}

// ---- its end ----

void Service::exited(int code) {
    running_ = false;
    readOutput();
    // It may have been ready for a moment.
    if (state_ == State::kStarting && ready_fd_.valid()) readReadyFd();
    const std::string how = howItEnded(code);
    if (state_ == State::kStarting) {
        log_.finish();
        return failStart(withTail(Error(Code::kInternal, how + " before it was ready")));
    }
    if (state_ != State::kReady) return;
    state_ = State::kOver;
    limit_.reset();
    if (!stopping_ && ended_) {
        const bool kills = plan_.hook.service->on_exit == spec::HookService::OnExit::kKill;
        ended_({name(), code, kills, withTail(Error(Code::kInternal, how)).message()});
    }
    cleanUp([self = shared_from_this()] { self->stopped(); });
}

void Service::stop(std::function<void()> done) {
    stopped_.push_back(std::move(done));
    if (std::exchange(stopping_, true)) return;
    if (state_ == State::kStarting) {
        return failStart(Error(Code::kFailedPrecondition, "the container is being removed"));
    }
    // What an earlier end left behind is being removed; again does no harm.
    const spec::HookService& service = *plan_.hook.service;
    const auto remove = [this] { cleanUp([self = shared_from_this()] { self->stopped(); }); };
    if (!running_ || service.stop_timeout == 0) return remove();
    (void)base::sendSignal(pidfd_.get(), service.stop_signal);
    limit_ = Timer(host_.loop, std::chrono::seconds(service.stop_timeout), [this, remove] {
        const auto keep = shared_from_this();
        base::log::warning("service " + name() + " of " + plan_.container_id +
                           " does not stop: it is killed");
        remove();
    });
}

void Service::cleanUp(std::function<void()> done) {
    removeCgroup(host_.loop, host_.cgroups, plan_.cgroup, kCleanUpLimit,
                 [self = shared_from_this(), done = std::move(done)](const Result<bool>& gone) {
                     if (!gone || !*gone) {
                         base::log::warning("service " + self->name() + " of " +
                                            self->plan_.container_id + ": its cgroup is in use");
                     }
                     self->readOutput();
                     self->output_watch_.reset();
                     self->log_.finish();
                     done();
                 });
}

void Service::stopped() {
    limit_.reset();
    for (const auto& done : std::exchange(stopped_, {})) done();
}

void Service::readOutput() {
    if (!output_.valid()) return;
    // No more at once than a pipe holds: others want their turn.
    constexpr int kMostReads = 16;
    std::array<char, 4096> buffer{};
    for (int i = 0; i < kMostReads; ++i) {
        const ssize_t n = ::read(output_.get(), buffer.data(), buffer.size());
        if (n < 0) return;
        if (n == 0) return output_watch_.reset();
        log_.add({buffer.data(), static_cast<size_t>(n)});
    }
}

}  // namespace arca::vminitd
