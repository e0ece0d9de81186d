#include "runtime/drivers/agent_driver.h"

#include "arca_extension.pb.h"
#include "runtime/rpc_names.h"
#include "runtime/statistics.h"
#include "sandbox_context.pb.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;
namespace context_api = com::apple::containerization::sandbox::v3;
namespace extension_api = arca::sandbox::v1;

void AgentDriver::watchInterrupts(CallOptions& options) const {
    if (signals_ == nullptr) return;
    options.watches.push_back(
        {signals_->interruptFd(), [signals = signals_] { return signals->checkInterrupt(); }});
}

template <typename Request, typename Response>
Result<> AgentDriver::callFor(std::string_view path, const std::string& container_id) {
    Request request;
    Response response;
    request.set_container_id(container_id);
    return call(path, request, response);
}

Result<std::vector<pid_t>> AgentDriver::listProcesses(const std::string& container_id) {
    extension_api::ListProcessesRequest request;
    extension_api::ListProcessesResponse response;
    request.set_container_id(container_id);
    ARCA_CHECK(call(ARCA_EXTENSION_RPC("ListProcesses"), request, response));
    return std::vector<pid_t>(response.pids().begin(), response.pids().end());
}

Result<std::vector<ProcessRow>> AgentDriver::describeProcesses(const std::string& container_id) {
    extension_api::ListProcessesRequest request;
    extension_api::ListProcessesResponse response;
    request.set_container_id(container_id);
    request.set_details(true);
    ARCA_CHECK(call(ARCA_EXTENSION_RPC("ListProcesses"), request, response));
    if (response.processes().empty() && !response.pids().empty()) {
        return fail(Code::kUnsupported, "the guest's agent tells only the pids of processes");
    }
    std::vector<ProcessRow> rows;
    for (const auto& process : response.processes()) {
        rows.push_back({process.pid(), process.parent(), process.uid(), process.terminal(),
                        process.started(), process.cpu_ms(), process.command()});
    }
    return rows;
}

Result<> AgentDriver::pause(const std::string& container_id) {
    return callFor<extension_api::PauseRequest, extension_api::PauseResponse>(
        ARCA_EXTENSION_RPC("Pause"), container_id);
}

Result<> AgentDriver::resume(const std::string& container_id) {
    return callFor<extension_api::ResumeRequest, extension_api::ResumeResponse>(
        ARCA_EXTENSION_RPC("Resume"), container_id);
}

Result<> AgentDriver::update(const std::string& container_id, const std::string& resources) {
    extension_api::UpdateRequest request;
    extension_api::UpdateResponse response;
    request.set_container_id(container_id);
    request.set_resources(resources);
    return call(ARCA_EXTENSION_RPC("Update"), request, response);
}

Result<Driver::Statistics> AgentDriver::statistics(const std::string& container_id) {
    context_api::ContainerStatisticsRequest request;
    context_api::ContainerStatisticsResponse response;
    request.add_container_ids(container_id);
    ARCA_CHECK(call(ARCA_CONTEXT_RPC("ContainerStatistics"), request, response));
    if (response.containers_size() != 1) {
        return fail(Code::kInternal, "the agent has no statistics of this container");
    }
    const context_api::ContainerStats& stats = response.containers(0);
    return Statistics{statisticsJson(stats), stats.memory_events().oom_kill()};
}

}  // namespace arca::runtime
