// SandboxContext: the agent's environment, and the sandbox's kernel.
#include <map>

#include "vminitd/kernel.h"
#include "vminitd/rpc_context.h"
#include "vminitd/rpc_status.h"

namespace arca::vminitd {

using base::Code;
using grpc::Status;
using grpc::StatusCode;

ServerUnaryReactor* ContextService::Setenv(CallbackServerContext* context,
                                           const wire::SetenvRequest* request,
                                           wire::SetenvResponse*) {
    return answer(context,
                  systemStatus("setenv", parts_.environment.set(request->key(), request->value())));
}

ServerUnaryReactor* ContextService::Getenv(CallbackServerContext* context,
                                           const wire::GetenvRequest* request,
                                           wire::GetenvResponse* response) {
    const auto value = parts_.environment.get(request->key());
    if (value) response->set_value(*value);
    return answer(context, Status::OK);
}

ServerUnaryReactor* ContextService::Sysctl(CallbackServerContext* context,
                                           const wire::SysctlRequest* request,
                                           wire::SysctlResponse*) {
    return onMachine(context, state_.files, "sysctl", [request] {
        // In the order of the keys: that of the wire is not kept anywhere.
        const std::map<std::string, std::string> settings(request->settings().begin(),
                                                          request->settings().end());
        return systemStatus("sysctl", setSysctls(settings));
    });
}

ServerUnaryReactor* ContextService::SetTime(CallbackServerContext* context,
                                            const wire::SetTimeRequest* request,
                                            wire::SetTimeResponse*) {
    if (!parts_.owns_machine) return answer(context, refusedOutsideVm("setTime"));
    return answer(context, systemStatus("setTime", setTime(request->sec(), request->usec())));
}

ServerUnaryReactor* ContextService::SetupEmulator(CallbackServerContext* context,
                                                  const wire::SetupEmulatorRequest* request,
                                                  wire::SetupEmulatorResponse*) {
    return onMachine(context, state_.files, "setupEmulator", [request] {
        return systemStatus("setupEmulator", setUpEmulator({.binary_path = request->binary_path(),
                                                            .name = request->name(),
                                                            .type = request->type(),
                                                            .offset = request->offset(),
                                                            .magic = request->magic(),
                                                            .mask = request->mask(),
                                                            .flags = request->flags()}));
    });
}

ServerUnaryReactor* ContextService::Kill(CallbackServerContext* context,
                                         const wire::KillRequest* request,
                                         wire::KillResponse* response) {
    if (!parts_.owns_machine) return answer(context, refusedOutsideVm("kill"));
    const auto sent = killAny(request->pid(), request->signal());
    if (sent) return answer(context, Status::OK);
    if (sent.error().code() == Code::kInvalidArgument) {
        return answer(context, systemStatus("kill", sent.error()));
    }
    // The protocol's answer has no room for the reason: what a client that asks for it can see.
    response->set_result(-1);
    context->AddTrailingMetadata("arca-error", metadataText(sent.error().message()));
    return answer(context, Status::OK);
}

}  // namespace arca::vminitd
