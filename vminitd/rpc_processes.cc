// SandboxContext: containers and their processes.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error_texts.h"
#include "vminitd/rpc_context.h"
#include "vminitd/rpc_statistics.h"
#include "vminitd/rpc_status.h"

namespace arca::vminitd {

using base::Code;
using base::Result;
using grpc::Status;
using grpc::StatusCode;

namespace {

template <typename Request>
ProcessKey keyOf(const Request& request) {
    ProcessKey key;
    key.id = request.id();
    if (request.has_containerid()) key.container_id = request.containerid();
    return key;
}

class WaitReactor : public HeldReactor<WaitReactor, ServerUnaryReactor> {
 public:
    WaitReactor(const RpcServer::Parts& parts, ProcessKey key, wire::WaitProcessResponse* response)
        : HeldReactor(parts), response_(response) {
        wait(std::move(key));
    }

    void ended(const Result<ExitStatus>& status) {
        if (!status) {
            return Finish(processStatus("waitProcess", "wait on process", status.error()));
        }
        constexpr int64_t kNsPerSecond = 1'000'000'000;
        response_->set_exitcode(status->code);
        setTime(*response_->mutable_exited_at(), status->at_ns / kNsPerSecond,
                status->at_ns % kNsPerSecond);
        Finish(Status::OK);
    }

 private:
    wire::WaitProcessResponse* response_;
};

}  // namespace

ServerUnaryReactor* ContextService::CreateProcess(CallbackServerContext* context,
                                                  const wire::CreateProcessRequest* request,
                                                  wire::CreateProcessResponse*) {
    // Copied here, off the loop: a configuration is some 50 KiB.
    CreateRequest create;
    create.key = keyOf(*request);
    if (request->has_stdin()) create.stdin_port = request->stdin();
    if (request->has_stdout()) create.stdout_port = request->stdout();
    if (request->has_stderr()) create.stderr_port = request->stderr();
    CreateFields fields = readCreateFields(
        request->has_ociruntimepath() ? std::optional(request->ociruntimepath()) : std::nullopt,
        request->configuration(),
        request->has_options() ? std::optional(request->options()) : std::nullopt);
    create.has_runtime_path = fields.has_runtime_path;
    create.configuration = std::move(fields.configuration);
    auto options = parseCreateOptions(fields.options);
    return onLoop(context, [this, context, create = std::move(create),
                            options = std::move(options)](auto finish) mutable {
        const auto warnings = std::make_shared<std::vector<std::string>>();
        create.warned = [warnings](std::string_view text) {
            constexpr size_t kMost = 16;
            if (warnings->size() < kMost) warnings->push_back(metadataText(text));
        };
        const auto reply = [context, finish, warnings](Result<> result) {
            // The protocol's answer has no room for them: a client that knows of it logs them.
            for (const std::string& text : *warnings) {
                context->AddTrailingMetadata(base::texts::kWarningMetadata, text);
            }
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

ServerUnaryReactor* ContextService::StartProcess(CallbackServerContext* context,
                                                 const wire::StartProcessRequest* request,
                                                 wire::StartProcessResponse* response) {
    return onLoop(context, [this, key = keyOf(*request), response](auto finish) {
        parts_.agent.startProcess(key, [response, finish](Result<pid_t> pid) {
            if (pid) response->set_pid(*pid);
            finish(pid ? Status::OK : processStatus("startProcess", "start process", pid.error()));
        });
    });
}

ServerUnaryReactor* ContextService::KillProcess(CallbackServerContext* context,
                                                const wire::KillProcessRequest* request,
                                                wire::KillProcessResponse* response) {
    return onLoop(
        context, [this, key = keyOf(*request), number = request->signal(), response](auto finish) {
            const auto sent = parts_.agent.killProcess(key, number);
            if (sent && !*sent) response->set_result(-1);
            finish(sent ? Status::OK : processStatus("killProcess", "kill process", sent.error()));
        });
}

ServerUnaryReactor* ContextService::WaitProcess(CallbackServerContext*,
                                                const wire::WaitProcessRequest* request,
                                                wire::WaitProcessResponse* response) {
    return new WaitReactor(parts_, keyOf(*request), response);  // deletes itself in OnDone
}

ServerUnaryReactor* ContextService::ResizeProcess(CallbackServerContext* context,
                                                  const wire::ResizeProcessRequest* request,
                                                  wire::ResizeProcessResponse*) {
    return onLoop(context, [this, key = keyOf(*request), rows = request->rows(),
                            columns = request->columns()](auto finish) {
        const auto done = parts_.agent.resizeProcess(key, rows, columns);
        finish(done ? Status::OK : processStatus("resizeProcess", "resize process", done.error()));
    });
}

ServerUnaryReactor* ContextService::CloseProcessStdin(CallbackServerContext* context,
                                                      const wire::CloseProcessStdinRequest* request,
                                                      wire::CloseProcessStdinResponse*) {
    return onLoop(context, [this, key = keyOf(*request)](auto finish) {
        const auto done = parts_.agent.closeProcessStdin(key);
        finish(done ? Status::OK
                    : processStatus("closeProcessStdin", "close process stdin", done.error()));
    });
}

ServerUnaryReactor* ContextService::DeleteProcess(CallbackServerContext* context,
                                                  const wire::DeleteProcessRequest* request,
                                                  wire::DeleteProcessResponse*) {
    return onLoop(context, [this, key = keyOf(*request)](auto finish) {
        parts_.agent.deleteProcess(key, [finish](Result<> done) {
            finish(done ? Status::OK
                        : processStatus("deleteProcess", "delete process", done.error()));
        });
    });
}

ServerUnaryReactor* ContextService::ContainerStatistics(
    CallbackServerContext* context, const wire::ContainerStatisticsRequest* request,
    wire::ContainerStatisticsResponse* response) {
    std::vector<std::string> ids(request->container_ids().begin(), request->container_ids().end());
    return onLoop(context, [this, ids = std::move(ids), wanted = selectionOf(*request),
                            response](auto finish) {
        const auto all = parts_.agent.statistics(ids, wanted);
        if (!all) {
            return finish(
                Status(StatusCode::INTERNAL, "containerStatistics: " + all.error().message()));
        }
        for (const auto& [id, statistics] : *all) {
            fillStatistics(id, statistics, *response->add_containers());
        }
        finish(Status::OK);
    });
}

}  // namespace arca::vminitd
