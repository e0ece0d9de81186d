#include "vminitd/rpc_extension.h"

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "spec/version.h"
#include "vminitd/process_details.h"
#include "vminitd/rpc_status.h"
#include "vminitd/service.h"
#include "vminitd/vm_power.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using grpc::Status;
using grpc::StatusCode;

namespace {

// The stream of Events: ends of services as they come, then the container's own, which is the last.
// Deletes itself in OnDone.
class EventsReactor : public grpc::ServerWriteReactor<ext::Event> {
 public:
    EventsReactor(const RpcServer::Parts& parts, const std::string& container_id)
        : parts_(parts), container_id_(container_id), watch_(std::make_shared<Watching>()) {
        watch_->reactor = this;
        parts_.activity.begin();
        parts_.loop.post([parts, id = container_id, watch = watch_] { begin(parts, id, watch); });
    }

    void OnWriteDone(bool ok) override {
        const ext::Event* next = nullptr;
        std::optional<Status> last;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            queue_.pop_front();
            if (!ok) queue_.clear();
            if (!queue_.empty()) next = &queue_.front();
            writing_ = next != nullptr;
            if (!writing_) last = final_;
        }
        // Not under the lock: it goes with the reactor.
        if (next != nullptr) return StartWrite(next);
        if (last) Finish(*last);
    }

    void OnCancel() override {
        parts_.loop.post([parts = parts_, id = container_id_, watch = watch_] {
            if (watch->open) end(parts, id, watch, Status::CANCELLED);
        });
    }
    void OnDone() override { delete this; }

 private:
    // Shared with the loop, which touches the reactor only while `open`: until its last word.
    struct Watching {
        EventsReactor* reactor = nullptr;
        Agent::WaitToken exit = 0;
        uint64_t services = 0;
        bool open = true;
    };
    using WatchingPtr = std::shared_ptr<Watching>;

    static void begin(const RpcServer::Parts& parts, const std::string& id,
                      const WatchingPtr& watch) {
        if (!watch->open) return;
        auto services = parts.agent.watchServices(id, [id, watch](const ServiceEnd& ended) {
            if (watch->open) watch->reactor->write(serviceEvent(id, ended));
        });
        if (!services) return end(parts, id, watch, plainStatus(services.error()));
        watch->services = *services;
        const auto token = parts.agent.waitProcess(
            ProcessKey{id, id}, [parts, id, watch](const Result<ExitStatus>& status) {
                if (watch->open) exited(parts, id, watch, status);
            });
        watch->exit = token;
    }

    static void exited(const RpcServer::Parts& parts, const std::string& id,
                       const WatchingPtr& watch, const Result<ExitStatus>& status) {
        if (!status && status.error().code() != Code::kUnavailable) {
            return end(parts, id, watch, plainStatus(status.error()));
        }
        ext::Event event;
        event.set_kind(ext::Event::EXIT);
        event.set_container_id(id);
        event.set_exit_code(status ? status->code : -1);
        const auto view = parts.agent.containerState(id);
        if (view) event.set_detail(view->end_reason);
        if (!status) event.set_detail(status.error().message());
        watch->reactor->write(std::move(event));
        end(parts, id, watch, Status::OK);
    }

    static ext::Event serviceEvent(const std::string& id, const ServiceEnd& ended) {
        ext::Event event;
        event.set_kind(ext::Event::SERVICE_EXIT);
        event.set_container_id(id);
        event.set_exit_code(ended.exit_code);
        event.set_detail(ended.reason);
        event.set_service(ended.name);
        event.set_kills(ended.kills);
        return event;
    }

    static void end(const RpcServer::Parts& parts, const std::string& id, const WatchingPtr& watch,
                    const Status& status) {
        watch->open = false;
        parts.agent.forgetWait(watch->exit);
        parts.agent.forgetServiceWatch(id, watch->services);
        parts.activity.end();
        watch->reactor->finishWith(status);
    }

    void write(ext::Event event) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            queue_.push_back(std::move(event));
            if (std::exchange(writing_, true)) return;
        }
        StartWrite(&queue_.front());
    }

    // Once what is queued has been written.
    void finishWith(const Status& status) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            final_ = status;
            if (writing_) return;
        }
        Finish(status);
    }

    const RpcServer::Parts parts_;
    const std::string container_id_;
    const WatchingPtr watch_;
    std::mutex mutex_;
    std::deque<ext::Event> queue_;  // all below: guarded by mutex_; the first is being written
    bool writing_ = false;
    std::optional<Status> final_;
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

void addDetails(const ProcessDetails& details, ext::ListProcessesResponse& response) {
    ext::ListProcessesResponse::Process& process = *response.add_processes();
    process.set_pid(details.pid);
    process.set_parent(details.parent);
    process.set_uid(details.uid);
    process.set_terminal(details.terminal);
    process.set_started(details.started);
    process.set_cpu_ms(details.cpu_ms);
    process.set_command(details.command);
}

}  // namespace

ServerUnaryReactor* ExtensionService::Version(CallbackServerContext* context,
                                              const ext::VersionRequest*,
                                              ext::VersionResponse* response) {
    response->set_version(spec::kProjectVersion);
    for (const char* feature : {"created", "devices", "events.exit", "events.service", "exact-copy",
                                "exec", "hooks", "pause", "processes", "seccomp", "update"}) {
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
    return onLoop(context, [this, id = request->container_id(), details = request->details(),
                            response](auto finish) {
        const auto pids = parts_.agent.listProcesses(id);
        if (!pids) return finish(base::fail(base::Error(pids.error())));
        for (const pid_t pid : *pids) response->add_pids(pid);
        if (!details) return finish({});
        const bool taken = details_.post([finish, response, pids = *pids] {
            for (const pid_t pid : pids) {
                if (const auto process = processDetails(pid)) addDetails(*process, *response);
            }
            finish({});
        });
        if (!taken) finish(base::fail(Code::kUnavailable, "processes of others are being read"));
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
        response->set_end_reason(view->end_reason);
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
