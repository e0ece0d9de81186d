// A process that the agent knows: an init or an exec of a container.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vminitd/body.h"
#include "vminitd/event_loop.h"
#include "vminitd/process_start.h"
#include "vminitd/record.h"

namespace arca::vminitd {

enum class ProcessStatus { kCreating, kCreated, kRunning, kStopped };

struct ExitStatus {
    int code = 0;       // low 8 bits, or 128 + signal
    int64_t at_ns = 0;  // since the epoch, when the exit was noticed
};

// Loop thread only. Its pidfd is watched only while somebody waits; otherwise its state is looked
// up when asked for.
class Process {
 public:
    using ExitHandler = std::function<void(base::Result<ExitStatus>)>;

    // A process that is being made.
    Process(EventLoop& loop, std::string id, bool terminal);
    // One that was recorded: found again by pid and start time. `gate` as of probeGate().
    static std::shared_ptr<Process> adopt(EventLoop& loop, const ProcessRecord& record,
                                          GateState gate);

    // What is to be recorded of it, before it is real.
    void setIdentity(const base::ProcessIdentity& identity);
    // It waits at its gate.
    void setCreated(base::UniqueFd pidfd);
    void setRunning();
    // From now on setExit() tells its exit, and nothing else is asked.
    void expectExit() { told_ = true; }
    // Its streams, where they are the agent's; null otherwise.
    std::shared_ptr<ProcessIo> io;
    // It has ended. Called once, by whoever reaps it.
    void setExit(const ExitStatus& status);

    // As of now; a zombie has stopped.
    ProcessStatus status();
    [[nodiscard]] const std::string& id() const { return record_.id; }
    [[nodiscard]] bool terminal() const { return record_.terminal; }
    [[nodiscard]] const base::ProcessIdentity& identity() const { return record_.identity; }
    [[nodiscard]] const ProcessRecord& record() const { return record_; }
    // Borrowed; -1 before it is made and when it was gone at adoption.
    [[nodiscard]] int pidfd() const { return pidfd_.get(); }

    // Calls `handler` with the exit status, as soon as the kernel tells it. kUnavailable when it
    // cannot be learned: the process ended before the agent held it, or the kernel is too old.
    uint64_t onExit(ExitHandler handler);
    void forgetExitHandler(uint64_t id);
    [[nodiscard]] bool hasExitHandlers() const { return !handlers_.empty(); }
    // Called once with a status that was learned, to be recorded.
    void onExitLearned(std::function<void()> learned) { learned_ = std::move(learned); }
    // Nobody will hear of it any more: handlers get `error`.
    void giveUp(const base::Error& error);

    bool being_made = false;  // its CreateProcess is under way
    bool starting = false;    // its StartProcess is
    std::optional<TerminalSize> pending_size;

 private:
    void watchExit();
    void exitEvent(uint32_t events);
    bool learnExit();
    void answer(const base::Result<ExitStatus>& status);

    EventLoop& loop_;
    ProcessRecord record_;
    base::UniqueFd pidfd_;
    Watch watch_;
    ProcessStatus status_ = ProcessStatus::kCreating;
    bool told_ = false;
    int64_t ended_at_ns_ = 0;
    uint64_t next_handler_ = 1;
    std::map<uint64_t, ExitHandler> handlers_;
    std::function<void()> learned_;
};

// Now, in nanoseconds since the epoch.
int64_t wallClockNs();

}  // namespace arca::vminitd
