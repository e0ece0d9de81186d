// What a command needs of a sandbox, whichever kind it is.
//
// A driver knows how to reach the agent, how the program gets its stdio, and which process of this
// host stands for a process of the container. Nothing else in the CLI depends on the kind. Used by
// one thread of one short-lived process; a call that returns an error has left nothing behind but
// what it says.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/process.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/context.h"
#include "runtime/record.h"
#include "runtime/settings.h"
#include "runtime/signals.h"
#include "runtime/state_store.h"

namespace arca::runtime {

enum class Status { kCreating, kCreated, kRunning, kPaused, kStopped };

// As in state JSON.
std::string_view statusName(Status status);

// An error of the agent in the words that callers of runtimes know.
base::Error agentError(const base::Error& error);

enum class Stdio {
    kInherit,   // the program gets ours
    kTerminal,  // it gets a new terminal, whose master comes back
};

struct ProcessRequest {
    std::string container_id;
    std::string process_id;  // equal to container_id: the init
    // config.json, paths absolute; of an exec only `process` counts. Borrowed.
    const spec::Spec* spec = nullptr;
    std::string options;  // JSON: bundle, no_pivot, no_new_keyring, preserve_fds, ...
    Stdio stdio = Stdio::kInherit;
    bool applies_labels = true;  // of `spec`; else they are left out
    int inherited_fds = 0;       // descriptors 3..3+N-1 go to the program
    // Not empty: puts the process from which the container's are cloned, or its stand-in, into its
    // cgroup, and may change `spec` to say which that is.
    std::function<base::Result<>(pid_t)> place_body;
    // Whether somebody can plug interfaces into a new network namespace before the program runs.
    bool may_be_plugged = false;
    // Runs the prestart and createRuntime hooks, given the init's pid. May be empty for an exec.
    std::function<base::Result<>(pid_t)> run_hooks;
};

// A process that waits for startProcess().
struct MadeProcess {
    base::ProcessIdentity identity;  // of this host
    base::UniqueFd terminal;         // the master; only with kTerminal
};

// The end of a hook service of a container.
struct ServiceEnd {
    std::string name;
    int exit_code = 0;
    std::string reason;
    bool kills = false;  // the container is ended for it
};

class ServiceWatch {
 public:
    ServiceWatch() = default;
    ServiceWatch(const ServiceWatch&) = delete;
    ServiceWatch& operator=(const ServiceWatch&) = delete;
    virtual ~ServiceWatch() = default;

    // For poll(2): readable means that next() may have something. -1 once nothing more will come.
    [[nodiscard]] virtual int fd() const = 0;
    // One that has ended; nullopt when there is no word of another yet. Does not wait.
    virtual base::Result<std::optional<ServiceEnd>> next() = 0;
};

// A process as ps(1) shows it. Where it is in a guest all of it is the guest's word.
struct ProcessRow {
    pid_t pid = 0;
    pid_t parent = 0;
    uid_t uid = 0;
    std::string terminal;  // empty: none
    int64_t started = 0;   // seconds since the epoch
    uint64_t cpu_ms = 0;
    std::string command;
};

class Driver {
 public:
    Driver() = default;
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;
    virtual ~Driver() = default;

    // createProcess() ends with an error when `signals` (borrowed) has an interrupt. Once a process
    // is being started they are its own, and wait for whoever passes them on.
    void setInterrupts(const SignalInbox* signals) { signals_ = signals; }

    // Makes a process and leaves it at its gate, as our child. On failure nothing is left of it
    // outside the agent's record, which deleteProcess() removes.
    virtual base::Result<MadeProcess> createProcess(const ProcessRequest& request) = 0;

    // Lets it run; returns once its program has been executed. After an error it has ended.
    virtual base::Result<> startProcess(const ContainerDir& dir, const Record& record,
                                        const std::string& process_id) = 0;

    // Removes what the agent has of a process; of an init: ends all processes of the container and
    // removes its cgroup. One that is not known is no error.
    virtual base::Result<> deleteProcess(const std::string& container_id,
                                         const std::string& process_id) = 0;

    // Sends a signal to the container's init. kNotFound when it has ended. SIGKILL thaws a frozen
    // container, so that it has an effect.
    virtual base::Result<> signalInit(const ContainerDir& dir, const Record& record,
                                      int signal_number) = 0;

    // Processes of the container, as pids of the agent: of this host where sharesPids().
    virtual base::Result<std::vector<pid_t>> listProcesses(const std::string& container_id) = 0;
    // The same with what ps(1) tells of each.
    virtual base::Result<std::vector<ProcessRow>> describeProcesses(
        const std::string& container_id) = 0;

    virtual base::Result<> pause(const std::string& container_id) = 0;
    virtual base::Result<> resume(const std::string& container_id) = 0;
    // `resources`: an OCI LinuxResources object; absent members stay as they are.
    virtual base::Result<> update(const std::string& container_id,
                                  const std::string& resources) = 0;

    // `data` of `events --stats` as JSON, and how often the OOM killer has struck so far.
    struct Statistics {
        std::string data;
        uint64_t oom_kills = 0;
    };
    virtual base::Result<Statistics> statistics(const std::string& container_id) = 0;

    // A descriptor that becomes readable when the OOM killer may have struck in the container: read
    // it, then look at the statistics. Invalid where nothing tells: then they are looked at in
    // intervals only.
    virtual base::UniqueFd watchOom(const ContainerDir&) { return base::UniqueFd(); }

    // What the container is doing. Needs no agent and changes nothing.
    virtual base::Result<Status> status(const ContainerDir& dir, const Record& record) = 0;

    // The container's configuration as the agent completed it, for the defaults of exec.
    virtual base::Result<spec::Spec> configuration(const ContainerDir& dir) = 0;

    // After a SIGKILL that had no effect in time: what else can be done to end the init, or
    // kDeadlineExceeded when there is nothing.
    virtual base::Result<> endByForce(const Record& record) = 0;

    // Sends a signal to one of listProcesses(). One that has ended is no error.
    virtual base::Result<> signalProcess(pid_t pid, int signal_number) = 0;

    // Whether the pids of listProcesses() are this host's.
    [[nodiscard]] virtual bool sharesPids() const = 0;

    // Whether the agent has deleted the container by itself: a hook that it ran has failed.
    virtual bool deletedByAgent(const std::string&) { return false; }

    // Why the agent has ended the container by itself; "" when it has not.
    virtual std::string endReason(const std::string&) { return {}; }

    // Word of the container's hook services, as it comes. Null where there are none.
    virtual base::Result<std::unique_ptr<ServiceWatch>> watchServices(const std::string&) {
        return std::unique_ptr<ServiceWatch>();
    }

    // Why a process ended with the exit code of one whose sandbox was lost; "" when it was not.
    virtual std::string lossReason() { return {}; }

    // Closes connections before a long wait, so that the agent can leave.
    virtual void disconnect() = 0;

 protected:
    const SignalInbox* signals_ = nullptr;
};

// Which sandbox a driver is for.
struct SandboxChoice {
    std::string kind;                    // local, vm or connect=ADDRESS
    std::string sandbox_id;              // the container that owns it
    int root_fd = -1;                    // the state root; borrowed, must outlive the driver
    const Settings* settings = nullptr;  // borrowed; needed by create and run only
};

// The driver for it; connects to nothing yet. kUnsupported for a kind that this build does not
// offer.
base::Result<std::unique_ptr<Driver>> openDriver(const SandboxChoice& choice);

}  // namespace arca::runtime
