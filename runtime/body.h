// The body: vmexec's first stage as a child of this process, so that the container's init, which
// it clones with CLONE_PARENT, is a child of ours too, and of our caller when we have gone.
//
// DESIGN: ARCHITECTURE.md, "A container's life"; the conversation: proto/body_protocol.h.
#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/drivers/driver.h"

namespace arca::runtime {

class Body {
 public:
    // Starts vmexec. With Stdio::kInherit it has our descriptors 0 to 2, else /dev/null there, so
    // that pipes of a caller who captures our output are not held; and 3..3+inherited_fds-1.
    //
    // It is executed from a mount of its file that is detached and read-only (from a sealed copy
    // in memory where we may not mount): a process in the container that opens /proc/PID/exe of
    // it cannot write to the file (CVE-2019-5736).
    static base::Result<Body> start(Stdio stdio, int inherited_fds);

    Body(Body&& other) noexcept;
    Body& operator=(Body&&) = delete;
    // Kills and reaps what reap() has not.
    ~Body();

    [[nodiscard]] pid_t pid() const { return pid_; }
    [[nodiscard]] int pidfd() const { return pidfd_.get(); }
    // Our end of the sync socket, for the agent. Close it once it has been sent.
    [[nodiscard]] base::UniqueFd& syncSocket() { return sync_; }

    // Waits for the first stage, which leaves once it has reported the init's pid.
    base::Result<> reap();

    // For when pidfd() is readable: reaps without waiting. Fails when a signal has ended the first
    // stage: then the init, if it has been made, waits for ever for somebody to say so. Other
    // failures are reported by the agent, in vmexec's words. pidfd() is -1 afterwards.
    base::Result<> checkEnd();

 private:
    Body(pid_t pid, base::UniqueFd sync) : pid_(pid), sync_(std::move(sync)) {}
    pid_t pid_;  // 0: reaped
    base::UniqueFd pidfd_;
    base::UniqueFd sync_;
};

// Reaps every child that has ended: inits and processes of a create that failed.
void reapEndedChildren();

}  // namespace arca::runtime
