#include "vminitd/process.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/utsname.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "base/log.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

// PIDFD_GET_INFO tells the exit code of any process since Linux 6.15, once its parent has reaped
// it; a hang-up of the pidfd says that this has happened.
bool kernelTellsExit() {
    static const bool tells = [] {
        utsname name{};
        int major = 0;
        int minor = 0;
        if (::uname(&name) != 0) return false;
        if (std::sscanf(name.release, "%d.%d", &major, &minor) != 2) return false;
        return major > 6 || (major == 6 && minor >= 15);
    }();
    return tells;
}

short pollNow(int pidfd) {
    pollfd entry{pidfd, POLLIN, 0};
    if (::poll(&entry, 1, 0) <= 0) return 0;
    return entry.revents;
}

}  // namespace

int64_t wallClockNs() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

Process::Process(EventLoop& loop, std::string id, bool terminal) : loop_(loop) {
    record_.id = std::move(id);
    record_.terminal = terminal;
}

std::shared_ptr<Process> Process::adopt(EventLoop& loop, const ProcessRecord& record,
                                        GateState gate) {
    auto process = std::make_shared<Process>(loop, record.id, record.terminal);
    process->record_ = record;
    if (!record.created) return process;
    auto pidfd = base::openPidfd(record.identity);
    if (!pidfd) {
        process->status_ = ProcessStatus::kStopped;
        return process;
    }
    process->pidfd_ = std::move(*pidfd);
    process->status_ =
        gate == GateState::kWaiting ? ProcessStatus::kCreated : ProcessStatus::kRunning;
    return process;
}

void Process::setIdentity(const base::ProcessIdentity& identity) {
    record_.identity = identity;
    record_.created = true;
}

void Process::setCreated(UniqueFd pidfd) {
    pidfd_ = std::move(pidfd);
    status_ = ProcessStatus::kCreated;
    if (!handlers_.empty()) watchExit();
}

void Process::setRunning() {
    if (status_ == ProcessStatus::kCreated) status_ = ProcessStatus::kRunning;
}

ProcessStatus Process::status() {
    if (status_ != ProcessStatus::kCreated && status_ != ProcessStatus::kRunning) return status_;
    if (pollNow(pidfd_.get()) != 0) {
        status_ = ProcessStatus::kStopped;
        if (ended_at_ns_ == 0) ended_at_ns_ = wallClockNs();
    }
    return status_;
}

bool Process::learnExit() {
    if (record_.exit_code) return true;
    if (!pidfd_.valid()) return false;
    const auto code = base::exitCodeOf(pidfd_.get());
    if (!code) return false;
    record_.exit_code = code;
    record_.exited_at_ns = ended_at_ns_ != 0 ? ended_at_ns_ : wallClockNs();
    if (learned_) learned_();
    return true;
}

uint64_t Process::onExit(ExitHandler handler) {
    const uint64_t id = next_handler_++;
    handlers_.emplace(id, std::move(handler));
    if (status_ != ProcessStatus::kCreating) watchExit();
    return id;
}

void Process::forgetExitHandler(uint64_t id) {
    handlers_.erase(id);
    if (handlers_.empty()) watch_.reset();
}

void Process::setExit(const ExitStatus& status) {
    if (record_.exit_code) return;
    if (status_ != ProcessStatus::kCreating) status_ = ProcessStatus::kStopped;
    record_.exit_code = status.code;
    record_.exited_at_ns = status.at_ns;
    if (learned_) learned_();
    answer(status);
}

void Process::watchExit() {
    if (told_) {
        if (record_.exit_code) answer(ExitStatus{*record_.exit_code, record_.exited_at_ns});
        return;
    }
    if (status() == ProcessStatus::kStopped && learnExit()) {
        return answer(ExitStatus{*record_.exit_code, record_.exited_at_ns});
    }
    if (!pidfd_.valid()) {
        return answer(fail(Code::kUnavailable, "the exit status of " + record_.id +
                                                   " is not known: it ended unobserved"));
    }
    if (watch_.active()) return;
    auto watch =
        Watch::make(loop_, pidfd_.get(), EPOLLIN, [this](uint32_t events) { exitEvent(events); });
    if (!watch) return answer(fail(std::move(watch).error()));
    watch_ = std::move(*watch);
}

void Process::exitEvent(uint32_t events) {
    (void)status();  // notes the time
    if (learnExit()) return answer(ExitStatus{*record_.exit_code, record_.exited_at_ns});
    const bool reaped = (events & EPOLLHUP) != 0;
    if (reaped || !kernelTellsExit()) {
        return answer(fail(Code::kUnavailable, "the exit status of " + record_.id +
                                                   " is not known: this kernel does not tell it"));
    }
    // A zombie: its parent has still to reap it. Only the hang-up counts from here.
    watch_.change(0);
}

void Process::answer(const Result<ExitStatus>& status) {
    watch_.reset();
    const auto handlers = std::exchange(handlers_, {});
    for (const auto& [id, handler] : handlers) handler(status);
}

void Process::giveUp(const base::Error& error) {
    answer(fail(base::Error(error)));
}

}  // namespace arca::vminitd
