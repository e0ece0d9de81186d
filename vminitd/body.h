// The body of a process that is being made, and who brought it.
//
// In the local sandbox a command brings it over attach.sock; in a VM the agent forks it itself.
// What differs between the two (whence the body comes, where stdio and the terminal go, who runs
// the host's hooks) is behind these two interfaces; process_setup.h does not know which it has.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::vminitd {

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

struct Body {
    base::UniqueFd sync;   // the sync socket of body_protocol.h
    base::UniqueFd pidfd;  // of stage 1
    std::shared_ptr<BodyOwner> owner;
};

struct BodyKey {
    std::string container_id;
    std::string process_id;
    auto operator<=>(const BodyKey&) const = default;
};

class BodySource {
 public:
    virtual ~BodySource() = default;
    // Gives the body for a process to `ready`, now or later; kFailedPrecondition when there is none
    // in time.
    virtual void acquire(const BodyKey& key, std::function<void(base::Result<Body>)> ready) = 0;
};

}  // namespace arca::vminitd
