#include "vminitd/vm_body.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "base/files.h"
#include "base/guarded_program.h"
#include "base/process.h"
#include "base/socket.h"
#include "vminitd/vm_body_child.h"

namespace arca::vminitd {

using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

// The agent itself, in the place of the command that would have brought the body.
class VmBodyOwner : public BodyOwner {
 public:
    VmBodyOwner(GuestHooks& hooks, std::shared_ptr<VmStdio> stdio, spec::Hooks lists,
                spec::State state)
        : hooks_(hooks),
          stdio_(std::move(stdio)),
          lists_(std::move(lists)),
          state_(std::move(state)) {}

    void runHooks(pid_t pid, std::function<void(Result<>)> done) override {
        state_.pid = pid;
        hooks_.run({{"prestart", std::move(lists_.prestart)},
                    {"createRuntime", std::move(lists_.createRuntime)}},
                   state_, std::move(done));
    }

    Result<> created(pid_t /*pid*/, int master_fd) override {
        if (master_fd < 0) return {};
        return stdio_->useTerminal(master_fd);
    }

    void warning(std::string_view /*text: logged by who passes it on*/) override {}
    void onGone(std::function<void()> /*gone: the agent stays*/) override {}

 private:
    GuestHooks& hooks_;
    std::shared_ptr<VmStdio> stdio_;
    spec::Hooks lists_;
    spec::State state_;
};

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> out;
    out.reserve(strings.size() + 1);
    for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
    out.push_back(nullptr);
    return out;
}

}  // namespace

Result<std::unique_ptr<VmBodySource>> VmBodySource::make(EventLoop& loop,
                                                         base::Transport& transport,
                                                         const Environment& environment,
                                                         GuestHooks& hooks, VmModules& modules,
                                                         const std::string& vmexec) {
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
            modules_.whenLoaded([this, request, ready, stdio = std::move(*stdio)] {
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
    const std::vector<char*> envp = pointers(env);
    volatile int exec_errno = 0;
    const VmBodyPlan plan{
        program_.get(), sync.second.get(), {ends.in.get(), ends.out.get(), ends.err.get()},
        argv,           envp.data(),       &exec_errno};
    sigset_t all;
    sigset_t before;
    (void)::sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &before);
    // vfork: only this thread is suspended, until exec, and no page table is copied.
    const pid_t pid = ::vfork();
    if (pid == 0) vmBodyChild(plan);
    const int fork_errno = errno;
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (pid < 0) return failErrno("fork", fork_errno);
    // One that could not be executed has exited; the supervisor reaps it.
    if (exec_errno != 0) return failErrno("exec vmexec", exec_errno);
    Body body;
    body.sync = std::move(sync.first);
    ARCA_TRY(body.pidfd, base::openPidfd(pid));
    body.owner = std::make_shared<VmBodyOwner>(hooks_, stdio, request.hooks, request.state);
    body.io = stdio;
    return body;
}

}  // namespace arca::vminitd
