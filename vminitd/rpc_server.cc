#include "vminitd/rpc_server.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>
#include <unistd.h>

#include <utility>

#include "arca_extension.grpc.pb.h"
#include "sandbox_context.grpc.pb.h"
#include "spec/version.h"
#include "vminitd/rpc_statistics.h"
#include "vminitd/rpc_status.h"
#include "vminitd/vm_power.h"

namespace arca::vminitd {

namespace wire = com::apple::containerization::sandbox::v3;
namespace ext = arca::sandbox::v1;

using base::Code;
using base::Result;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using grpc::Status;
using grpc::StatusCode;

namespace {

constexpr int kMaxReceiveBytes = 16 << 20;  // a configuration may be 10 MiB

template <typename Request>
ProcessKey keyOf(const Request& request) {
    ProcessKey key;
    key.id = request.id();
    if (request.has_containerid()) key.container_id = request.containerid();
    return key;
}

void setTime(google::protobuf::Timestamp& out, int64_t seconds, int64_t nanoseconds) {
    out.set_seconds(seconds);
    out.set_nanos(static_cast<int32_t>(nanoseconds));
}

// ---- a held call ----

// Shared by a reactor and the loop. The reactor deletes itself after it was finished, so the loop
// touches it only while `open`.
template <typename Reactor>
struct HeldCall {
    Reactor* reactor = nullptr;
    Agent::WaitToken token = 0;
    bool open = true;  // loop thread only
};

class WaitReactor : public ServerUnaryReactor {
 public:
    WaitReactor(const RpcServer::Parts& parts, ProcessKey key, wire::WaitProcessResponse* response)
        : parts_(parts), call_(std::make_shared<HeldCall<WaitReactor>>()) {
        call_->reactor = this;
        parts_.activity.begin();
        parts_.loop.post([parts, call = call_, key = std::move(key), response] {
            if (!call->open) return;
            const auto token =
                parts.agent.waitProcess(key, [parts, call, response](Result<ExitStatus> status) {
                    if (!call->open) return;
                    if (!status) {
                        return close(parts, *call,
                                     processStatus("waitProcess", "wait on process",
                                                   status.error()));
                    }
                    constexpr int64_t kNsPerSecond = 1'000'000'000;
                    response->set_exitcode(status->code);
                    setTime(*response->mutable_exited_at(), status->at_ns / kNsPerSecond,
                            status->at_ns % kNsPerSecond);
                    close(parts, *call, Status::OK);
                });
            call->token = token;
        });
    }

    void OnCancel() override {
        parts_.loop.post([parts = parts_, call = call_] {
            if (!call->open) return;
            parts.agent.forgetWait(call->token);
            close(parts, *call, Status::CANCELLED);
        });
    }
    void OnDone() override { delete this; }

 private:
    static void close(const RpcServer::Parts& parts, HeldCall<WaitReactor>& call, Status status) {
        call.open = false;
        parts.activity.end();
        call.reactor->Finish(std::move(status));
    }

    RpcServer::Parts parts_;
    std::shared_ptr<HeldCall<WaitReactor>> call_;
};

class EventsReactor : public grpc::ServerWriteReactor<ext::Event> {
 public:
    EventsReactor(const RpcServer::Parts& parts, std::string container_id)
        : parts_(parts), call_(std::make_shared<HeldCall<EventsReactor>>()) {
        call_->reactor = this;
        event_.set_container_id(container_id);
        parts_.activity.begin();
        parts_.loop.post([parts, call = call_, id = std::move(container_id)] {
            if (!call->open) return;
            call->token = parts.agent.waitProcess(
                ProcessKey{id, id}, [parts, call](Result<ExitStatus> status) {
                    if (!call->open) return;
                    if (!status && status.error().code() != Code::kUnavailable) {
                        return close(parts, *call, plainStatus(status.error()));
                    }
                    call->reactor->exited(status);
                    call->open = false;
                    parts.activity.end();
                });
        });
    }

    void OnCancel() override {
        parts_.loop.post([parts = parts_, call = call_] {
            if (!call->open) return;
            parts.agent.forgetWait(call->token);
            close(parts, *call, Status::CANCELLED);
        });
    }
    void OnDone() override { delete this; }

 private:
    static void close(const RpcServer::Parts& parts, HeldCall<EventsReactor>& call,
                      Status status) {
        call.open = false;
        parts.activity.end();
        call.reactor->Finish(std::move(status));
    }

    void exited(const Result<ExitStatus>& status) {
        event_.set_kind(ext::Event::EXIT);
        if (status) {
            event_.set_exit_code(status->code);
        } else {
            event_.set_exit_code(-1);
            event_.set_detail(status.error().message());
        }
        StartWriteAndFinish(&event_, grpc::WriteOptions(), Status::OK);
    }

    RpcServer::Parts parts_;
    ext::Event event_;
    std::shared_ptr<HeldCall<EventsReactor>> call_;
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

// ---- SandboxContext ----

// Calls that are not overridden answer UNIMPLEMENTED.
class ContextService : public wire::SandboxContext::CallbackService {
 public:
    explicit ContextService(const RpcServer::Parts& parts) : parts_(parts) {}

    ServerUnaryReactor* CreateProcess(CallbackServerContext* context,
                                      const wire::CreateProcessRequest* request,
                                      wire::CreateProcessResponse*) override {
        // Copied here, off the loop: a configuration is some 50 KiB.
        CreateRequest create;
        create.key = keyOf(*request);
        if (request->has_stdin()) create.stdin_port = request->stdin();
        if (request->has_stdout()) create.stdout_port = request->stdout();
        if (request->has_stderr()) create.stderr_port = request->stderr();
        CreateFields fields = readCreateFields(
            request->has_ociruntimepath() ? std::optional(request->ociruntimepath())
                                          : std::nullopt,
            request->configuration(),
            request->has_options() ? std::optional(request->options()) : std::nullopt);
        create.has_runtime_path = fields.has_runtime_path;
        create.configuration = std::move(fields.configuration);
        auto options = parseCreateOptions(fields.options);
        return onLoop(context, [this, create = std::move(create),
                                options = std::move(options)](auto finish) mutable {
            const auto reply = [finish](Result<> result) {
                if (result) return finish(Status::OK);
                base::Error error = std::move(result).error();
                // NOT_FOUND speaks of containers, and a create needs none.
                if (error.code() == Code::kNotFound) {
                    error = base::Error(Code::kInternal, error.message(), error.sysErrno());
                }
                finish(processStatus("createProcess", "create process", error));
            };
            if (!options) return reply(base::fail(std::move(options).error()));
            create.options = std::move(*options);
            parts_.agent.createProcess(std::move(create), reply);
        });
    }

    ServerUnaryReactor* StartProcess(CallbackServerContext* context,
                                     const wire::StartProcessRequest* request,
                                     wire::StartProcessResponse* response) override {
        return onLoop(context, [this, key = keyOf(*request), response](auto finish) {
            parts_.agent.startProcess(key, [response, finish](Result<pid_t> pid) {
                if (pid) response->set_pid(*pid);
                finish(pid ? Status::OK
                           : processStatus("startProcess", "start process", pid.error()));
            });
        });
    }

    ServerUnaryReactor* KillProcess(CallbackServerContext* context,
                                    const wire::KillProcessRequest* request,
                                    wire::KillProcessResponse* response) override {
        return onLoop(context, [this, key = keyOf(*request), number = request->signal(),
                                response](auto finish) {
            const auto sent = parts_.agent.killProcess(key, number);
            if (sent && !*sent) response->set_result(-1);
            finish(sent ? Status::OK : processStatus("killProcess", "kill process", sent.error()));
        });
    }

    ServerUnaryReactor* WaitProcess(CallbackServerContext*, const wire::WaitProcessRequest* request,
                                    wire::WaitProcessResponse* response) override {
        return new WaitReactor(parts_, keyOf(*request), response);  // deletes itself in OnDone
    }

    ServerUnaryReactor* ResizeProcess(CallbackServerContext* context,
                                      const wire::ResizeProcessRequest* request,
                                      wire::ResizeProcessResponse*) override {
        return onLoop(context, [this, key = keyOf(*request), rows = request->rows(),
                                columns = request->columns()](auto finish) {
            const auto done = parts_.agent.resizeProcess(key, rows, columns);
            finish(done ? Status::OK
                        : processStatus("resizeProcess", "resize process", done.error()));
        });
    }

    ServerUnaryReactor* CloseProcessStdin(CallbackServerContext* context,
                                          const wire::CloseProcessStdinRequest* request,
                                          wire::CloseProcessStdinResponse*) override {
        return onLoop(context, [this, key = keyOf(*request)](auto finish) {
            const auto done = parts_.agent.closeProcessStdin(key);
            finish(done ? Status::OK
                        : processStatus("closeProcessStdin", "close process stdin",
                                        done.error()));
        });
    }

    ServerUnaryReactor* DeleteProcess(CallbackServerContext* context,
                                      const wire::DeleteProcessRequest* request,
                                      wire::DeleteProcessResponse*) override {
        return onLoop(context, [this, key = keyOf(*request)](auto finish) {
            parts_.agent.deleteProcess(key, [finish](Result<> done) {
                finish(done ? Status::OK
                            : processStatus("deleteProcess", "delete process", done.error()));
            });
        });
    }

    ServerUnaryReactor* ContainerStatistics(CallbackServerContext* context,
                                            const wire::ContainerStatisticsRequest* request,
                                            wire::ContainerStatisticsResponse* response) override {
        std::vector<std::string> ids(request->container_ids().begin(),
                                     request->container_ids().end());
        return onLoop(context, [this, ids = std::move(ids), wanted = selectionOf(*request),
                                response](auto finish) {
            const auto all = parts_.agent.statistics(ids, wanted);
            if (!all) {
                return finish(Status(StatusCode::INTERNAL,
                                     "containerStatistics: " + all.error().message()));
            }
            for (const auto& [id, statistics] : *all) {
                fillStatistics(id, statistics, *response->add_containers());
            }
            finish(Status::OK);
        });
    }

    // ---- the sandbox itself: answered where they came in ----

    ServerUnaryReactor* Sync(CallbackServerContext* context, const wire::SyncRequest*,
                             wire::SyncResponse*) override {
        ::sync();
        return answer(context, Status::OK);
    }

    ServerUnaryReactor* Stat(CallbackServerContext* context, const wire::StatRequest* request,
                             wire::StatResponse* response) override {
        const auto st = statFile(request->path());
        if (!st) {
            if (st.error().code() == Code::kNotFound) {
                return answer(context, Status(StatusCode::NOT_FOUND, "stat: path not found '" +
                                                                         request->path() + "'"));
            }
            response->set_error(st.error().message());
            return answer(context, Status::OK);
        }
        wire::Stat& out = *response->mutable_stat();
        out.set_dev(st->st_dev);
        out.set_ino(st->st_ino);
        out.set_mode(st->st_mode);
        out.set_nlink(st->st_nlink);
        out.set_uid(st->st_uid);
        out.set_gid(st->st_gid);
        out.set_rdev(st->st_rdev);
        out.set_size(st->st_size);
        out.set_blksize(st->st_blksize);
        out.set_blocks(st->st_blocks);
        setTime(*out.mutable_atime(), st->st_atim.tv_sec, st->st_atim.tv_nsec);
        setTime(*out.mutable_mtime(), st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
        setTime(*out.mutable_ctime(), st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
        return answer(context, Status::OK);
    }

    ServerUnaryReactor* Mkdir(CallbackServerContext* context, const wire::MkdirRequest* request,
                              wire::MkdirResponse*) override {
        return answer(context, internal("mkdir", makeDirectory(request->path(), request->all(),
                                                               request->perms())));
    }

    ServerUnaryReactor* WriteFile(CallbackServerContext* context,
                                  const wire::WriteFileRequest* request,
                                  wire::WriteFileResponse*) override {
        const auto& flags = request->flags();
        return answer(context,
                      internal("writeFile",
                               writeFile({.path = request->path(),
                                          .data = request->data(),
                                          .mode = request->mode(),
                                          .create_parent_dirs = flags.create_parent_dirs(),
                                          .append = flags.append(),
                                          .create_if_missing = flags.create_if_missing()})));
    }

    ServerUnaryReactor* Setenv(CallbackServerContext* context, const wire::SetenvRequest* request,
                               wire::SetenvResponse*) override {
        const auto set = parts_.environment.set(request->key(), request->value());
        return answer(context, set ? Status::OK
                                   : Status(StatusCode::INVALID_ARGUMENT,
                                            "setenv: " + set.error().message()));
    }

    ServerUnaryReactor* Getenv(CallbackServerContext* context, const wire::GetenvRequest* request,
                               wire::GetenvResponse* response) override {
        const auto value = parts_.environment.get(request->key());
        if (value) response->set_value(*value);
        return answer(context, Status::OK);
    }

    ServerUnaryReactor* Kill(CallbackServerContext* context, const wire::KillRequest* request,
                             wire::KillResponse* response) override {
        // Everything but the agent: in a VM, its containers; here, the whole host.
        if (request->pid() <= 0) {
            return answer(context, Status(StatusCode::UNIMPLEMENTED,
                                          "kill: pid " + std::to_string(request->pid()) +
                                              " is not supported in a local sandbox"));
        }
        auto pidfd = base::openPidfd(request->pid());
        Result<> sent;
        if (pidfd) {
            sent = base::sendSignal(pidfd->get(), request->signal());
        } else {
            sent = base::fail(std::move(pidfd).error());
        }
        response->set_result(sent ? 0 : -1);
        return answer(context, Status::OK);
    }

 private:
    using Finish = std::function<void(Status)>;

    // Runs `work(finish)` on the loop; whoever gets `finish` calls it once.
    template <typename Work>
    ServerUnaryReactor* onLoop(CallbackServerContext* context, Work work) {
        ServerUnaryReactor* reactor = context->DefaultReactor();
        Activity& activity = parts_.activity;
        activity.begin();
        parts_.loop.post([reactor, &activity,
                          held = std::make_shared<Work>(std::move(work))]() mutable {
            (*held)([reactor, &activity](Status status) {
                activity.end();
                reactor->Finish(std::move(status));
            });
        });
        return reactor;
    }

    ServerUnaryReactor* answer(CallbackServerContext* context, Status status) {
        parts_.activity.touch();
        ServerUnaryReactor* reactor = context->DefaultReactor();
        reactor->Finish(std::move(status));
        return reactor;
    }

    // INTERNAL whatever went wrong, as the protocol has it; the text is ours.
    static Status internal(const char* rpc, const Result<>& result) {
        if (result) return Status::OK;
        return {StatusCode::INTERNAL, std::string(rpc) + ": " + result.error().message()};
    }

    RpcServer::Parts parts_;
};

// ---- SandboxExtension ----

class ExtensionService : public ext::SandboxExtension::CallbackService {
 public:
    explicit ExtensionService(const RpcServer::Parts& parts) : parts_(parts) {}

    ServerUnaryReactor* Version(CallbackServerContext* context, const ext::VersionRequest*,
                                ext::VersionResponse* response) override {
        response->set_version(spec::kProjectVersion);
        for (const char* feature :
             {"created", "devices", "events.exit", "exec", "hooks", "pause", "processes",
              "seccomp", "update"}) {
            response->add_features(feature);
        }
        if (parts_.power != nullptr) response->add_features("vm");
        parts_.activity.touch();
        ServerUnaryReactor* reactor = context->DefaultReactor();
        reactor->Finish(Status::OK);
        return reactor;
    }

    ServerUnaryReactor* ListProcesses(CallbackServerContext* context,
                                      const ext::ListProcessesRequest* request,
                                      ext::ListProcessesResponse* response) override {
        return onLoop(context, [this, id = request->container_id(), response](auto finish) {
            const auto pids = parts_.agent.listProcesses(id);
            if (pids) {
                for (const pid_t pid : *pids) response->add_pids(pid);
            }
            finish(pids ? Result<>() : Result<>(base::fail(base::Error(pids.error()))));
        });
    }

    ServerUnaryReactor* ContainerState(CallbackServerContext* context,
                                       const ext::ContainerStateRequest* request,
                                       ext::ContainerStateResponse* response) override {
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

    ServerUnaryReactor* Pause(CallbackServerContext* context, const ext::PauseRequest* request,
                              ext::PauseResponse*) override {
        return onLoop(context, [this, id = request->container_id()](auto finish) {
            parts_.agent.setPaused(id, true, finish);
        });
    }

    ServerUnaryReactor* Resume(CallbackServerContext* context, const ext::ResumeRequest* request,
                               ext::ResumeResponse*) override {
        return onLoop(context, [this, id = request->container_id()](auto finish) {
            parts_.agent.setPaused(id, false, finish);
        });
    }

    ServerUnaryReactor* Update(CallbackServerContext* context, const ext::UpdateRequest* request,
                               ext::UpdateResponse*) override {
        return onLoop(context, [this, id = request->container_id(),
                                resources = request->resources()](auto finish) {
            finish(parts_.agent.update(id, resources));
        });
    }

    ServerUnaryReactor* PowerOff(CallbackServerContext* context, const ext::PowerOffRequest*,
                                 ext::PowerOffResponse*) override {
        if (parts_.power == nullptr) {
            ServerUnaryReactor* reactor = context->DefaultReactor();
            reactor->Finish(Status(StatusCode::UNIMPLEMENTED, "powerOff: this is no VM"));
            return reactor;
        }
        return new PowerOffReactor(parts_.loop, *parts_.power);  // deletes itself in OnDone
    }

    grpc::ServerWriteReactor<ext::Event>* Events(CallbackServerContext*,
                                                 const ext::EventsRequest* request) override {
        return new EventsReactor(parts_, request->container_id());  // deletes itself in OnDone
    }

 private:
    template <typename Work>
    ServerUnaryReactor* onLoop(CallbackServerContext* context, Work work) {
        ServerUnaryReactor* reactor = context->DefaultReactor();
        Activity& activity = parts_.activity;
        activity.begin();
        parts_.loop.post([reactor, &activity, work = std::move(work)] {
            work([reactor, &activity](Result<> result) {
                activity.end();
                reactor->Finish(result ? Status::OK : plainStatus(result.error()));
            });
        });
        return reactor;
    }

    RpcServer::Parts parts_;
};

}  // namespace

struct RpcServer::Impl {
    explicit Impl(const Parts& parts) : context(parts), extension(parts) {
        grpc::ServerBuilder builder;
        builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
        builder.RegisterService(&context);
        builder.RegisterService(&extension);
        // Nobody reads these here; each costs work for every connection or call.
        builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0);
        builder.AddChannelArgument(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0);
        builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
        builder.AddChannelArgument(GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0);  // clients cancel in time
        builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
        server = builder.BuildAndStart();
    }

    ContextService context;
    ExtensionService extension;
    std::unique_ptr<grpc::Server> server;
};

RpcServer::RpcServer(const Parts& parts) : impl_(std::make_unique<Impl>(parts)) {}

RpcServer::~RpcServer() {
    impl_->server->Shutdown(std::chrono::system_clock::now());
}

void RpcServer::serve(base::UniqueFd connection) {
    const int flags = ::fcntl(connection.get(), F_GETFL);
    if (flags < 0 || ::fcntl(connection.get(), F_SETFL, flags | O_NONBLOCK) != 0) return;
    grpc::AddInsecureChannelFromFd(impl_->server.get(), connection.release());
}

}  // namespace arca::vminitd
