// Errors of the agent as gRPC statuses, in the guest protocol's words.
#pragma once

#include <grpcpp/support/status.h>

#include "base/result.h"

namespace arca::vminitd {

// For the seven process calls: `<rpc>: failed to <verb> process: <code>: "<message>"`.
grpc::Status processStatus(const char* rpc, const char* phrase, const base::Error& error);

// For the extension: the code and the message as they are.
grpc::Status plainStatus(const base::Error& error);

}  // namespace arca::vminitd
