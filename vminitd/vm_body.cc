#include "vminitd/vm_body.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <utility>
#include <vector>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/guarded_program.h"
#include "base/process.h"
#include "base/socket.h"

namespace arca::vminitd {

using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// The agent itself, in the place of the command that would have brought the body.
class VmBodyOwner : public BodyOwner {
 public:
    VmBodyOwner(const GuestHooks& hooks, std::shared_ptr<VmStdio> stdio, const BodyRequest& request)
        : hooks_(hooks),
          stdio_(std::move(stdio)),
          lists_(request.hooks),
          state_(request.state),
          services_(request.services),
          warned_(request.warned) {}

    // The process that they were for is made, or never will be.
    ~VmBodyOwner() override { *cancelled_ = true; }

    void runHooks(pid_t pid, std::function<void(Result<>)> done) override {
        state_.pid = pid;
        hooks_.run({.lists = {{"prestart", std::move(lists_.prestart)},
                              {"createRuntime", std::move(lists_.createRuntime)}},
                    .state = state_,
                    .services = services_,
                    .cancelled = cancelled_},
                   std::move(done));
    }

    Result<> created(pid_t /*pid*/, int master_fd) override {
        if (master_fd < 0) return {};
        return stdio_->useTerminal(master_fd);
    }

    void warning(std::string_view text) override {
        if (warned_) warned_(text);
    }
    void onGone(std::function<void()> /*gone: the agent stays*/) override {}

 private:
    const GuestHooks& hooks_;
    std::shared_ptr<VmStdio> stdio_;
    spec::Hooks lists_;
    spec::State state_;
    std::shared_ptr<ServiceGroup> services_;
    std::function<void(std::string_view)> warned_;
    std::shared_ptr<bool> cancelled_ = std::make_shared<bool>(false);
};

}  // namespace

Result<std::unique_ptr<VmBodySource>> VmBodySource::make(
    EventLoop& loop, base::Transport& transport, const Environment& environment,
    const GuestHooks& hooks, VmModules& modules, const std::string& vmexec) {
    std::unique_ptr<VmBodySource> source(
        new VmBodySource(loop, transport, environment, hooks, modules));
    ARCA_TRY(const UniqueFd file, base::openAt(AT_FDCWD, vmexec, O_PATH));
    ARCA_TRY(source->program_, base::guardedProgram(file, vmexec));
    return source;
}

void VmBodySource::acquire(const BodyRequest& request, std::function<void(Result<Body>)> ready) {
    VmStdio::dial(
        loop_, transport_, request.ports, request.terminal,
        [this, request, ready = std::move(ready)](Result<std::shared_ptr<VmStdio>> stdio) {
            if (!stdio) return ready(fail(std::move(stdio).error()));
            modules_.whenLoaded(request.drivers, [this, request, ready, stdio = std::move(*stdio)] {
                auto body = fork(request, stdio);
                if (!body) stdio->abandon();
                ready(std::move(body));
            });
        });
}

Result<Body> VmBodySource::fork(const BodyRequest& request, const std::shared_ptr<VmStdio>& stdio) {
    ARCA_TRY(const VmStdio::ChildEnds ends, stdio->pipes());
    ARCA_TRY(base::SocketPair sync, base::socketPair(SOCK_SEQPACKET));
    std::string sync_number = std::to_string(sync.second.get());
    std::string name = "vmexec";
    std::string flag = "--sync-fd";
    char* const argv[] = {name.data(), flag.data(), sync_number.data(), nullptr};
    const std::vector<std::string> env = environment_.all();
    const std::vector<char*> envp = base::execPointers(env);
    const int kept = sync.second.get();
    // The agent's protection from the OOM killer is not for containers.
    ARCA_TRY(const base::StartedProgram started,
             base::startProgram({.program_fd = program_.get(),
                                 .stdio = {ends.in.get(), ends.out.get(), ends.err.get()},
                                 .first_closed = 3,
                                 .kept = &kept,
                                 .kept_count = 1,
                                 .argv = argv,
                                 .envp = envp.data(),
                                 .oom_score = base::OomScore::kPlain}));
    // One that could not be executed has exited; the supervisor reaps it.
    if (started.error != 0) return failErrno("exec vmexec", started.error);
    Body body;
    body.sync = std::move(sync.first);
    ARCA_TRY(body.pidfd, base::openPidfd(started.pid));
    body.owner = std::make_shared<VmBodyOwner>(hooks_, stdio, request);
    body.io = stdio;
    return body;
}

}  // namespace arca::vminitd
