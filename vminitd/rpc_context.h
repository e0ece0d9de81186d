// SandboxContext: the class of all its calls. The rpc_*.cc files have them by subject.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "sandbox_context.grpc.pb.h"
#include "vminitd/copy_memory.h"
#include "vminitd/proxies.h"
#include "vminitd/rpc_server.h"
#include "vminitd/vm_boot.h"
#include "vminitd/workers.h"

namespace arca::vminitd {

namespace wire = com::apple::containerization::sandbox::v3;

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// What the handlers share. Each pool is for what must not wait for the others: a mount of a dead
// device must not hold up a Stat, and a write to a frozen file system not the thaw.
struct RpcState {
    explicit RpcState(const RpcServer::Parts& the_parts)
        : parts(the_parts), copy_memory(the_parts.power != nullptr ? kAgentCgroup : "") {}

    RpcServer::Parts parts;
    CopyMemory copy_memory;
    Workers files{16, 256};
    Workers mounts{16, 256};
    Workers thaws{4, 64};
    Workers copies{2, 64};
    Workers dials{8, 1024};
    std::shared_ptr<Proxies> proxies;  // null without a host
};

// Runs `work(finish)` on the loop; whoever gets `finish` calls it once, with a Status.
template <typename Work>
ServerUnaryReactor* runOnLoop(const RpcServer::Parts& parts, CallbackServerContext* context,
                              Work work) {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    Activity& activity = parts.activity;
    activity.begin();
    parts.loop.post([reactor, &activity, held = std::make_shared<Work>(std::move(work))]() mutable {
        (*held)([reactor, &activity](grpc::Status status) {
            activity.end();
            reactor->Finish(std::move(status));
        });
    });
    return reactor;
}

// A call that is held until a process has ended. `Reactor` is the derived class: it has
// `void ended(Result<ExitStatus>)`, called on the loop, at most once, which finishes the call.
// `Base`: the kind of reactor that gRPC wants. Deletes itself in OnDone.
template <typename Reactor, typename Base>
class HeldReactor : public Base {
 public:
    explicit HeldReactor(const RpcServer::Parts& parts)
        : parts_(parts), call_(std::make_shared<Call>()) {}

    // The last thing that the derived class's constructor does: the loop may answer at once.
    void wait(ProcessKey key) {
        call_->reactor = static_cast<Reactor*>(this);
        parts_.activity.begin();
        parts_.loop.post([parts = parts_, call = call_, key = std::move(key)] {
            if (!call->open) return;
            call->token =
                parts.agent.waitProcess(key, [parts, call](base::Result<ExitStatus> status) {
                    if (!call->open) return;
                    call->open = false;
                    parts.activity.end();
                    call->reactor->ended(std::move(status));
                });
        });
    }

    void OnCancel() override {
        parts_.loop.post([parts = parts_, call = call_] {
            if (!call->open) return;
            parts.agent.forgetWait(call->token);
            call->open = false;
            parts.activity.end();
            call->reactor->Finish(grpc::Status::CANCELLED);
        });
    }
    void OnDone() override { delete this; }

 private:
    // Shared with the loop. The reactor deletes itself after it was finished, so the loop touches
    // it only while `open`.
    struct Call {
        Reactor* reactor = nullptr;
        Agent::WaitToken token = 0;
        bool open = true;  // loop thread only
    };

    RpcServer::Parts parts_;
    std::shared_ptr<Call> call_;
};

class ContextService : public wire::SandboxContext::CallbackService {
 public:
    explicit ContextService(RpcState& state) : state_(state), parts_(state.parts) {}

    // ---- rpc_processes.cc ----
    ServerUnaryReactor* CreateProcess(CallbackServerContext* context,
                                      const wire::CreateProcessRequest* request,
                                      wire::CreateProcessResponse* response) override;
    ServerUnaryReactor* StartProcess(CallbackServerContext* context,
                                     const wire::StartProcessRequest* request,
                                     wire::StartProcessResponse* response) override;
    ServerUnaryReactor* KillProcess(CallbackServerContext* context,
                                    const wire::KillProcessRequest* request,
                                    wire::KillProcessResponse* response) override;
    ServerUnaryReactor* WaitProcess(CallbackServerContext* context,
                                    const wire::WaitProcessRequest* request,
                                    wire::WaitProcessResponse* response) override;
    ServerUnaryReactor* ResizeProcess(CallbackServerContext* context,
                                      const wire::ResizeProcessRequest* request,
                                      wire::ResizeProcessResponse* response) override;
    ServerUnaryReactor* CloseProcessStdin(CallbackServerContext* context,
                                          const wire::CloseProcessStdinRequest* request,
                                          wire::CloseProcessStdinResponse* response) override;
    ServerUnaryReactor* DeleteProcess(CallbackServerContext* context,
                                      const wire::DeleteProcessRequest* request,
                                      wire::DeleteProcessResponse* response) override;
    ServerUnaryReactor* ContainerStatistics(CallbackServerContext* context,
                                            const wire::ContainerStatisticsRequest* request,
                                            wire::ContainerStatisticsResponse* response) override;

    // ---- rpc_files.cc ----
    ServerUnaryReactor* Mount(CallbackServerContext* context, const wire::MountRequest* request,
                              wire::MountResponse* response) override;
    ServerUnaryReactor* Umount(CallbackServerContext* context, const wire::UmountRequest* request,
                               wire::UmountResponse* response) override;
    ServerUnaryReactor* Mkdir(CallbackServerContext* context, const wire::MkdirRequest* request,
                              wire::MkdirResponse* response) override;
    ServerUnaryReactor* WriteFile(CallbackServerContext* context,
                                  const wire::WriteFileRequest* request,
                                  wire::WriteFileResponse* response) override;
    ServerUnaryReactor* Stat(CallbackServerContext* context, const wire::StatRequest* request,
                             wire::StatResponse* response) override;
    ServerUnaryReactor* FilesystemOperation(CallbackServerContext* context,
                                            const wire::FilesystemOperationRequest* request,
                                            wire::FilesystemOperationResponse* response) override;
    ServerUnaryReactor* Sync(CallbackServerContext* context, const wire::SyncRequest* request,
                             wire::SyncResponse* response) override;

    // ---- rpc_copy.cc ----
    grpc::ServerWriteReactor<wire::CopyResponse>* Copy(CallbackServerContext* context,
                                                       const wire::CopyRequest* request) override;

    // ---- rpc_kernel.cc ----
    ServerUnaryReactor* Setenv(CallbackServerContext* context, const wire::SetenvRequest* request,
                               wire::SetenvResponse* response) override;
    ServerUnaryReactor* Getenv(CallbackServerContext* context, const wire::GetenvRequest* request,
                               wire::GetenvResponse* response) override;
    ServerUnaryReactor* Sysctl(CallbackServerContext* context, const wire::SysctlRequest* request,
                               wire::SysctlResponse* response) override;
    ServerUnaryReactor* SetTime(CallbackServerContext* context, const wire::SetTimeRequest* request,
                                wire::SetTimeResponse* response) override;
    ServerUnaryReactor* SetupEmulator(CallbackServerContext* context,
                                      const wire::SetupEmulatorRequest* request,
                                      wire::SetupEmulatorResponse* response) override;
    ServerUnaryReactor* Kill(CallbackServerContext* context, const wire::KillRequest* request,
                             wire::KillResponse* response) override;

    // ---- rpc_network.cc ----
    ServerUnaryReactor* IpLinkSet(CallbackServerContext* context,
                                  const wire::IpLinkSetRequest* request,
                                  wire::IpLinkSetResponse* response) override;
    ServerUnaryReactor* IpAddrAdd(CallbackServerContext* context,
                                  const wire::IpAddrAddRequest* request,
                                  wire::IpAddrAddResponse* response) override;
    ServerUnaryReactor* IpRouteAddLink(CallbackServerContext* context,
                                       const wire::IpRouteAddLinkRequest* request,
                                       wire::IpRouteAddLinkResponse* response) override;
    ServerUnaryReactor* IpRouteAddDefault(CallbackServerContext* context,
                                          const wire::IpRouteAddDefaultRequest* request,
                                          wire::IpRouteAddDefaultResponse* response) override;
    ServerUnaryReactor* ConfigureDns(CallbackServerContext* context,
                                     const wire::ConfigureDnsRequest* request,
                                     wire::ConfigureDnsResponse* response) override;
    ServerUnaryReactor* ConfigureHosts(CallbackServerContext* context,
                                       const wire::ConfigureHostsRequest* request,
                                       wire::ConfigureHostsResponse* response) override;
    ServerUnaryReactor* ProxyVsock(CallbackServerContext* context,
                                   const wire::ProxyVsockRequest* request,
                                   wire::ProxyVsockResponse* response) override;
    ServerUnaryReactor* StopVsockProxy(CallbackServerContext* context,
                                       const wire::StopVsockProxyRequest* request,
                                       wire::StopVsockProxyResponse* response) override;

 private:
    template <typename Work>
    ServerUnaryReactor* onLoop(CallbackServerContext* context, Work work) {
        return runOnLoop(parts_, context, std::move(work));
    }

    // Runs `work` on a thread of the pool. Request and response are there until it has given its
    // Status.
    ServerUnaryReactor* onWorker(CallbackServerContext* context, Workers& workers,
                                 std::function<grpc::Status()> work);
    // The same for what would change the machine: refused where that is not the sandbox's own. The
    // work begins when the drivers that it needs are there.
    ServerUnaryReactor* onMachine(CallbackServerContext* context, Workers& workers, const char* rpc,
                                  std::function<grpc::Status()> work, DriverNeed need = {});
    ServerUnaryReactor* answer(CallbackServerContext* context, grpc::Status status);
    [[nodiscard]] base::Result<GuestPath> pathOf(const std::string& text) const;

    RpcState& state_;
    RpcServer::Parts& parts_;
};

// UNIMPLEMENTED: it would change the machine, which in the local sandbox is the host; or it needs a
// port of the host.
grpc::Status refusedOutsideVm(const char* rpc);
grpc::Status refusedWithoutHost(const char* rpc);

void setTime(google::protobuf::Timestamp& out, int64_t seconds, int64_t nanoseconds);

}  // namespace arca::vminitd
