#include "runtime/drivers/driver.h"

#include "runtime/drivers/local_driver.h"
#include "runtime/drivers/sandbox_driver.h"
#include "runtime/grpc_client.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

base::Error agentError(const base::Error& error) {
    return {error.code(), innermostMessage(error.message()), error.sysErrno()};
}

std::string_view statusName(Status status) {
    switch (status) {
        case Status::kCreating:
            return "creating";
        case Status::kCreated:
            return "created";
        case Status::kRunning:
            return "running";
        case Status::kPaused:
            return "paused";
        case Status::kStopped:
            return "stopped";
    }
    return "stopped";
}

Result<std::unique_ptr<Driver>> openDriver(const SandboxChoice& choice) {
    if (choice.kind == "local") {
        return std::unique_ptr<Driver>(std::make_unique<LocalDriver>(choice.root_fd));
    }
    if (choice.kind == "vm" || choice.kind.rfind("connect=", 0) == 0) {
        return std::unique_ptr<Driver>(std::make_unique<SandboxDriver>(choice));
    }
    return fail(Code::kUnsupported, "sandbox \"" + choice.kind + "\" is not supported");
}

}  // namespace arca::runtime
