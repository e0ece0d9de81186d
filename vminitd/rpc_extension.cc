#include "vminitd/rpc_extension.h"

#include <memory>
#include <utility>

#include "spec/version.h"
#include "vminitd/rpc_status.h"
#include "vminitd/vm_power.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using grpc::Status;
using grpc::StatusCode;

namespace {

class EventsReactor : public HeldReactor<EventsReactor, grpc::ServerWriteReactor<ext::Event>> {
 public:
    EventsReactor(const RpcServer::Parts& parts, const std::string& container_id)
        : HeldReactor(parts) {
        event_.set_container_id(container_id);
        wait(ProcessKey{container_id, container_id});
    }

    void ended(const Result<ExitStatus>& status) {
        if (!status && status.error().code() != Code::kUnavailable) {
            return Finish(plainStatus(status.error()));
        }
        event_.set_kind(ext::Event::EXIT);
        if (status) {
            event_.set_exit_code(status->code);
        } else {
            event_.set_exit_code(-1);
            event_.set_detail(status.error().message());
        }
        StartWriteAndFinish(&event_, grpc::WriteOptions(), Status::OK);
    }

 private:
    ext::Event event_;
};

// Answers when all is written and unmounted; the answer on its way, the VM goes.
class PowerOffReactor : public ServerUnaryReactor {
 public:
    PowerOffReactor(EventLoop& loop, VmPower& power) : loop_(loop), power_(power) {
        loop_.post([this] { power_.prepare([this] { Finish(Status::OK); }); });
    }
    void OnDone() override {
        loop_.post([&power = power_] { power.shutDown(); });
        delete this;
    }

 private:
    EventLoop& loop_;
    VmPower& power_;
};

}  // namespace

ServerUnaryReactor* ExtensionService::Version(CallbackServerContext* context,
                                              const ext::VersionRequest*,
                                              ext::VersionResponse* response) {
    response->set_version(spec::kProjectVersion);
    for (const char* feature : {"created", "devices", "events.exit", "exact-copy", "exec", "hooks",
                                "pause", "processes", "seccomp", "update"}) {
        response->add_features(feature);
    }
    if (parts_.power != nullptr) response->add_features("vm");
    parts_.activity.touch();
    ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(Status::OK);
    return reactor;
}

ServerUnaryReactor* ExtensionService::ListProcesses(CallbackServerContext* context,
                                                    const ext::ListProcessesRequest* request,
                                                    ext::ListProcessesResponse* response) {
    return onLoop(context, [this, id = request->container_id(), response](auto finish) {
        const auto pids = parts_.agent.listProcesses(id);
        if (pids) {
            for (const pid_t pid : *pids) response->add_pids(pid);
        }
        finish(pids ? Result<>() : Result<>(base::fail(base::Error(pids.error()))));
    });
}

ServerUnaryReactor* ExtensionService::ContainerState(CallbackServerContext* context,
                                                     const ext::ContainerStateRequest* request,
                                                     ext::ContainerStateResponse* response) {
    return onLoop(context, [this, id = request->container_id(), response](auto finish) {
        const auto view = parts_.agent.containerState(id);
        if (!view) return finish(base::fail(base::Error(view.error())));
        switch (view->status) {
            case ContainerStatus::kCreated:
                response->set_status(ext::ContainerStateResponse::CREATED);
                break;
            case ContainerStatus::kRunning:
                response->set_status(ext::ContainerStateResponse::RUNNING);
                break;
            case ContainerStatus::kPaused:
                response->set_status(ext::ContainerStateResponse::PAUSED);
                break;
            case ContainerStatus::kStopped:
                response->set_status(ext::ContainerStateResponse::STOPPED);
                break;
        }
        response->set_pid(view->pid);
        for (const CgroupDir& dir : view->cgroups) response->add_cgroup_paths(dir.path);
        finish({});
    });
}

ServerUnaryReactor* ExtensionService::Pause(CallbackServerContext* context,
                                            const ext::PauseRequest* request, ext::PauseResponse*) {
    return onLoop(context, [this, id = request->container_id()](auto finish) {
        parts_.agent.setPaused(id, true, finish);
    });
}

ServerUnaryReactor* ExtensionService::Resume(CallbackServerContext* context,
                                             const ext::ResumeRequest* request,
                                             ext::ResumeResponse*) {
    return onLoop(context, [this, id = request->container_id()](auto finish) {
        parts_.agent.setPaused(id, false, finish);
    });
}

ServerUnaryReactor* ExtensionService::Update(CallbackServerContext* context,
                                             const ext::UpdateRequest* request,
                                             ext::UpdateResponse*) {
    return onLoop(context, [this, id = request->container_id(), resources = request->resources()](
                               auto finish) { finish(parts_.agent.update(id, resources)); });
}

ServerUnaryReactor* ExtensionService::PowerOff(CallbackServerContext* context,
                                               const ext::PowerOffRequest*,
                                               ext::PowerOffResponse*) {
    if (parts_.power == nullptr) {
        ServerUnaryReactor* reactor = context->DefaultReactor();
        reactor->Finish(Status(StatusCode::UNIMPLEMENTED, "powerOff: this is no VM"));
        return reactor;
    }
    return new PowerOffReactor(parts_.loop, *parts_.power);  // deletes itself in OnDone
}

grpc::ServerWriteReactor<ext::Event>* ExtensionService::Events(CallbackServerContext*,
                                                               const ext::EventsRequest* request) {
    return new EventsReactor(parts_, request->container_id());  // deletes itself in OnDone
}

}  // namespace arca::vminitd
