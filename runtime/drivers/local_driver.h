// The local sandbox: the agent is a plain process of this host, and the container's processes are
// children of whoever called the CLI. ARCHITECTURE.md, "A container's life (local)".
#pragma once

#include <google/protobuf/message_lite.h>

#include <string>
#include <string_view>

#include "runtime/drivers/agent_driver.h"

namespace arca::runtime {

class LocalDriver : public AgentDriver {
 public:
    explicit LocalDriver(int root_fd) : root_fd_(root_fd) {}

    base::Result<MadeProcess> createProcess(const ProcessRequest& request) override;
    base::Result<> startProcess(const ContainerDir& dir, const Record& record,
                                const std::string& process_id) override;
    base::Result<> deleteProcess(const std::string& container_id,
                                 const std::string& process_id) override;
    base::Result<> signalInit(const ContainerDir& dir, const Record& record,
                              int signal_number) override;
    base::UniqueFd watchOom(const ContainerDir& dir) override;
    base::Result<Status> status(const ContainerDir& dir, const Record& record) override;
    base::Result<spec::Spec> configuration(const ContainerDir& dir) override;
    base::Result<> endByForce(const Record& record) override;
    base::Result<> signalProcess(pid_t pid, int signal_number) override;
    [[nodiscard]] bool sharesPids() const override { return true; }

 private:
    base::Result<> connect();
    base::Result<MadeProcess> tryCreate(const ProcessRequest& request, bool& hooks_began);
    // A call that may be made twice: once more, to a new agent, when the agent dies.
    base::Result<> call(std::string_view path, const google::protobuf::MessageLite& request,
                        google::protobuf::MessageLite& response) override;

    int root_fd_;  // borrowed
    std::string key_;
};

}  // namespace arca::runtime
