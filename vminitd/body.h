// The body of a process that is being made, and who brought it.
//
// In the local sandbox a command brings it over attach.sock; in a VM the agent forks it itself.
// What differs between the two (whence the body comes, where stdio and the terminal go, who runs
// the host's hooks) is behind these two interfaces; process_setup.h does not know which it has.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/spec.h"
#include "spec/state.h"
#include "vminitd/driver_need.h"
#include "vminitd/process_start.h"

namespace arca::vminitd {

class ServiceGroup;

// The side that brought a body. Loop thread only.
class BodyOwner {
 public:
    virtual ~BodyOwner() = default;
    // Runs the prestart and createRuntime hooks for `pid`, then calls `done`. Not called at all
    // when the owner goes away first: then `gone` is.
    virtual void runHooks(pid_t pid, std::function<void(base::Result<>)> done) = 0;
    // The process waits at its gate. `master_fd`: its terminal, borrowed, or -1.
    virtual base::Result<> created(pid_t pid, int master_fd) = 0;
    virtual void warning(std::string_view text) = 0;
    // What to call, once, when the owner goes away. Replaces an earlier one; empty: nobody cares.
    virtual void onGone(std::function<void()> gone) = 0;
};

// The streams between a process and the host, where the agent carries them. Loop thread only.
class ProcessIo {
 public:
    virtual ~ProcessIo() = default;
    // kUnsupported without a terminal.
    virtual base::Result<> resize(TerminalSize size) = 0;
    // What the host has sent so far still reaches the process; then its stdin ends.
    virtual void closeStdin() = 0;
    // The process has ended: passes on what it left in its pipes or terminal, closes the streams,
    // then calls `closed`; after a second at the latest, whoever does not read. Once.
    virtual void processExited(std::function<void()> closed) = 0;
    // The process never came to be: everything is closed at once.
    virtual void abandon() = 0;
};

struct Body {
    base::UniqueFd sync;   // the sync socket of body_protocol.h
    base::UniqueFd pidfd;  // of stage 1
    std::shared_ptr<BodyOwner> owner;
    std::shared_ptr<ProcessIo> io;  // null: the streams are not the agent's
};

struct BodyKey {
    std::string container_id;
    std::string process_id;
    auto operator<=>(const BodyKey&) const = default;
};

// Ports of the host that a process's streams lead to; absent: /dev/null.
struct StdioPorts {
    std::optional<uint32_t> in, out, err;
};

// All that a source may have to know of the process.
struct BodyRequest {
    BodyKey key;
    StdioPorts ports;
    bool terminal = false;
    DriverNeed drivers;
    // Of an init whose hooks are the agent's to run: prestart and createRuntime.
    spec::Hooks hooks;
    spec::State state;                       // for them; without the pid
    std::shared_ptr<ServiceGroup> services;  // where those of them that are services go, or null
    std::function<void(std::string_view)> warned;  // see CreateRequest
};

class BodySource {
 public:
    virtual ~BodySource() = default;
    // Gives the body for a process to `ready`, now or later; kFailedPrecondition when there is none
    // in time.
    virtual void acquire(const BodyRequest& request,
                         std::function<void(base::Result<Body>)> ready) = 0;
};

}  // namespace arca::vminitd
