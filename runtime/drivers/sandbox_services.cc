// What a guest's agent does with a container by itself: hooks that failed, services that ended.
#include "arca_extension.pb.h"
#include "runtime/drivers/sandbox_driver.h"
#include "runtime/rpc_names.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;
namespace extension_api = arca::sandbox::v1;

namespace {

// The agent's stream of events, of which those about services are passed on.
class GuestServiceWatch final : public ServiceWatch {
 public:
    explicit GuestServiceWatch(std::unique_ptr<GrpcClient> client) : client_(std::move(client)) {}

    [[nodiscard]] int fd() const override { return client_ ? client_->fd() : -1; }

    Result<std::optional<ServiceEnd>> next() override {
        while (client_) {
            extension_api::Event event;
            const auto what = client_->next(event);
            // An agent without such a stream has no services; one that is gone has none any more.
            if (!what || *what == GrpcClient::Next::kEnd) {
                client_.reset();
                const bool no_more = what || what.error().code() == Code::kUnsupported ||
                                     what.error().code() == Code::kUnavailable ||
                                     what.error().code() == Code::kNotFound;
                if (!no_more) return fail(what.error());
                break;
            }
            if (*what == GrpcClient::Next::kNothing) break;
            if (event.kind() != extension_api::Event::SERVICE_EXIT) continue;
            return ServiceEnd{event.service(), event.exit_code(), event.detail(), event.kills()};
        }
        return std::nullopt;
    }

 private:
    std::unique_ptr<GrpcClient> client_;
};

}  // namespace

Result<extension_api::ContainerStateResponse> SandboxDriver::containerState(const std::string& id) {
    extension_api::ContainerStateRequest request;
    extension_api::ContainerStateResponse response;
    request.set_container_id(id);
    ARCA_CHECK(call(ARCA_EXTENSION_RPC("ContainerState"), request, response));
    return response;
}

bool SandboxDriver::deletedByAgent(const std::string& container_id) {
    const auto known = containerState(container_id);
    return !known && known.error().code() == Code::kNotFound;
}

std::string SandboxDriver::endReason(const std::string& container_id) {
    const auto known = containerState(container_id);
    return known ? known->end_reason() : std::string();
}

Result<std::unique_ptr<ServiceWatch>> SandboxDriver::watchServices(
    const std::string& container_id) {
    extension_api::EventsRequest request;
    request.set_container_id(container_id);
    ARCA_TRY(auto client, dialAgent());
    ARCA_CHECK(client->begin(ARCA_EXTENSION_RPC("Events"), request));
    return std::unique_ptr<ServiceWatch>(new GuestServiceWatch(std::move(client)));
}

}  // namespace arca::runtime
