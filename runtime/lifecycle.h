// The steps of a container's life that several commands share. The order of each is a promise to
// callers; it is written down in ARCHITECTURE.md, "A container's life".
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/context.h"
#include "runtime/drivers/driver.h"
#include "runtime/record.h"
#include "runtime/state_store.h"

namespace arca::runtime {

// A container that a command works on.
struct Container {
    StateStore store;
    ContainerDir dir;
    Record record;
    std::unique_ptr<Driver> driver;

    [[nodiscard]] base::Result<Status> status() { return driver->status(dir, record); }
};

// Opens an existing container. kNotFound: "container does not exist".
enum class Lock { kNone, kTake };
base::Result<Container> openContainer(const Context& context, const std::string& id, Lock lock);

enum class Action { kCreate, kRun };

struct CreatedContainer {
    Container container;  // locked
    // Only of kRun in the foreground with a terminal: its master, for the relay.
    base::UniqueFd terminal;
};

// `create`, and the first half of `run`: from the bundle to a process that waits at its gate. On
// failure (also when `signals` has an interrupt) nothing is left behind.
base::Result<CreatedContainer> createContainer(const Context& context, Action action,
                                               const SignalInbox& signals);

// `start`, and the second half of `run`. When a poststart hook fails the container is destroyed.
base::Result<> startContainer(Container& container);

// Sends SIGKILL to the init and waits until it has ended, at most 10 s.
base::Result<> killInit(Container& container);

// What of a container goes, once its init has ended: the agent's part with all processes and the
// cgroup, then the poststop hooks run (a failing one is a warning), then the state.
enum class PoststopHooks { kRun, kSkip };
base::Result<> destroyContainer(Container& container, PoststopHooks hooks = PoststopHooks::kRun);

// After a wait in the foreground: logs an error when the exit code is that of a process whose
// sandbox was lost, and it was; and when the agent has killed the container by itself.
void reportLoss(Container& container, int exit_code);

// An error of createProcess() or startProcess() in runc's words: what the process itself met is
// "unable to start container process: ...".
base::Error processError(const base::Error& error);

// Options of CreateProcess, field 8, as JSON.
struct ProcessOptions {
    std::string bundle;
    bool no_pivot = false;
    bool no_new_keyring = false;
    int preserve_fds = 0;
    bool ignore_paused = false;
    std::string rootless = "auto";
    std::vector<std::string> cgroups;  // of an exec, "[CONTROLLERS:]PATH"
    std::string cgroup_manager;        // of an init: "" is cgroupfs; or systemd, disabled
};
std::string writeOptions(const ProcessOptions& options);

}  // namespace arca::runtime
