// Bodies that the agent makes itself: in a VM, where no command brings them.
//
// A body is vmexec, forked from the loop's thread, so that the process which it makes is the
// agent's own child; its streams lead to ports of the host. Loop thread only, which must be the
// main one (see supervisor.h).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "vminitd/body.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"
#include "vminitd/guest_hooks.h"
#include "vminitd/vm_modules.h"
#include "vminitd/vm_stdio.h"

namespace arca::vminitd {

class VmBodySource : public BodySource {
 public:
    // `vmexec`: path of the program; found and guarded once. Everything must outlive the source.
    static base::Result<std::unique_ptr<VmBodySource>> make(
        EventLoop& loop, base::Transport& transport, const Environment& environment,
        const GuestHooks& hooks, VmModules& modules, const std::string& vmexec);

    // Dials the streams, then, once all drivers are there, forks.
    void acquire(const BodyRequest& request,
                 std::function<void(base::Result<Body>)> ready) override;

 private:
    VmBodySource(EventLoop& loop, base::Transport& transport, const Environment& environment,
                 const GuestHooks& hooks, VmModules& modules)
        : loop_(loop),
          transport_(transport),
          environment_(environment),
          hooks_(hooks),
          modules_(modules) {}
    base::Result<Body> fork(const BodyRequest& request, const std::shared_ptr<VmStdio>& stdio);

    EventLoop& loop_;
    base::Transport& transport_;
    const Environment& environment_;
    const GuestHooks& hooks_;
    VmModules& modules_;
    base::UniqueFd program_;
};

}  // namespace arca::vminitd
