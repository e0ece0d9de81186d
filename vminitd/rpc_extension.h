// SandboxExtension: what the guest protocol has no call for.
#pragma once

#include <grpcpp/grpcpp.h>

#include <utility>

#include "arca_extension.grpc.pb.h"
#include "vminitd/rpc_context.h"
#include "vminitd/rpc_server.h"
#include "vminitd/rpc_status.h"

namespace arca::vminitd {

namespace ext = arca::sandbox::v1;

class ExtensionService : public ext::SandboxExtension::CallbackService {
 public:
    explicit ExtensionService(const RpcServer::Parts& parts) : parts_(parts) {}

    ServerUnaryReactor* Version(CallbackServerContext* context, const ext::VersionRequest* request,
                                ext::VersionResponse* response) override;
    ServerUnaryReactor* ListProcesses(CallbackServerContext* context,
                                      const ext::ListProcessesRequest* request,
                                      ext::ListProcessesResponse* response) override;
    ServerUnaryReactor* ContainerState(CallbackServerContext* context,
                                       const ext::ContainerStateRequest* request,
                                       ext::ContainerStateResponse* response) override;
    ServerUnaryReactor* Pause(CallbackServerContext* context, const ext::PauseRequest* request,
                              ext::PauseResponse* response) override;
    ServerUnaryReactor* Resume(CallbackServerContext* context, const ext::ResumeRequest* request,
                               ext::ResumeResponse* response) override;
    ServerUnaryReactor* Update(CallbackServerContext* context, const ext::UpdateRequest* request,
                               ext::UpdateResponse* response) override;
    ServerUnaryReactor* PowerOff(CallbackServerContext* context,
                                 const ext::PowerOffRequest* request,
                                 ext::PowerOffResponse* response) override;
    grpc::ServerWriteReactor<ext::Event>* Events(CallbackServerContext* context,
                                                 const ext::EventsRequest* request) override;

 private:
    // The same for work that ends in a Result.
    template <typename Work>
    ServerUnaryReactor* onLoop(CallbackServerContext* context, Work work) {
        return runOnLoop(parts_, context, [work = std::move(work)](auto finish) {
            work([finish](const base::Result<>& result) {
                finish(result ? grpc::Status::OK : plainStatus(result.error()));
            });
        });
    }

    RpcServer::Parts parts_;
    // How long it takes to read what a process says of itself is up to that.
    Workers details_{2, 64};
};

}  // namespace arca::vminitd
