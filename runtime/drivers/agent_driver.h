// What every driver does by a plain call of the agent, wherever that runs.
#pragma once

#include <google/protobuf/message_lite.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/drivers/driver.h"
#include "runtime/grpc_client.h"

namespace arca::runtime {

class AgentDriver : public Driver {
 public:
    base::Result<std::vector<pid_t>> listProcesses(const std::string& container_id) override;
    base::Result<std::vector<ProcessRow>> describeProcesses(
        const std::string& container_id) override;
    base::Result<> pause(const std::string& container_id) override;
    base::Result<> resume(const std::string& container_id) override;
    base::Result<> update(const std::string& container_id, const std::string& resources) override;
    base::Result<Statistics> statistics(const std::string& container_id) override;
    void disconnect() override { client_.reset(); }

 protected:
    // One call, connecting first if need be. Errors are in the words that callers of runtimes know.
    virtual base::Result<> call(std::string_view path, const google::protobuf::MessageLite& request,
                                google::protobuf::MessageLite& response) = 0;
    // An interrupt of the command ends a call with these options.
    void watchInterrupts(CallOptions& options) const;

    std::unique_ptr<GrpcClient> client_;

 private:
    // For calls with only a container's id in the request.
    template <typename Request, typename Response>
    base::Result<> callFor(std::string_view path, const std::string& container_id);
};

}  // namespace arca::runtime
