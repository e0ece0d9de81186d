#include "vminitd/rpc_context.h"

namespace arca::vminitd {

using base::Result;
using grpc::Status;
using grpc::StatusCode;

ServerUnaryReactor* ContextService::onWorker(CallbackServerContext* context, Workers& workers,
                                             std::function<Status()> work) {
    ServerUnaryReactor* reactor = context->DefaultReactor();
    Activity& activity = parts_.activity;
    activity.begin();
    const bool taken = workers.post([reactor, &activity, work = std::move(work)] {
        Status status = work();
        activity.end();
        reactor->Finish(std::move(status));
    });
    if (!taken) {
        activity.end();
        reactor->Finish({StatusCode::RESOURCE_EXHAUSTED, "too much is being done already"});
    }
    return reactor;
}

ServerUnaryReactor* ContextService::onMachine(CallbackServerContext* context, Workers& workers,
                                              const char* rpc, std::function<Status()> work,
                                              DriverNeed need) {
    if (!parts_.owns_machine) return answer(context, refusedOutsideVm(rpc));
    return onWorker(context, workers, [this, work = std::move(work), need = std::move(need)] {
        // A file system, a link or binfmt_misc may come with a module.
        if (parts_.wait_for_drivers) parts_.wait_for_drivers(need);
        return work();
    });
}

ServerUnaryReactor* ContextService::answer(CallbackServerContext* context, Status status) {
    parts_.activity.touch();
    ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(std::move(status));
    return reactor;
}

Result<GuestPath> ContextService::pathOf(const std::string& text) const {
    return GuestPath::parse(text, parts_.containers);
}

Status refusedOutsideVm(const char* rpc) {
    return {StatusCode::UNIMPLEMENTED,
            std::string(rpc) + ": not offered in a local sandbox, which shares its host's kernel"};
}

Status refusedWithoutHost(const char* rpc) {
    return {StatusCode::UNIMPLEMENTED,
            std::string(rpc) + ": not offered in a local sandbox, where no port leads to the host"};
}

void setTime(google::protobuf::Timestamp& out, int64_t seconds, int64_t nanoseconds) {
    out.set_seconds(seconds);
    out.set_nanos(static_cast<int32_t>(nanoseconds));
}

}  // namespace arca::vminitd
