// Errors of the agent as gRPC statuses, in the guest protocol's words.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace arca::vminitd {

// For the seven process calls: `<rpc>: failed to <verb> process: <code>: "<message>"`.
grpc::Status processStatus(const char* rpc, const char* phrase, const base::Error& error);

// For the calls about the sandbox: `<rpc>: <message>`. INVALID_ARGUMENT and FAILED_PRECONDITION are
// told apart; everything else is INTERNAL, as the protocol has it.
grpc::Status systemStatus(const char* rpc, const base::Error& error);
grpc::Status systemStatus(const char* rpc, const base::Result<>& result);

// For the extension: the code and the message as they are.
grpc::Status plainStatus(const base::Error& error);

// A text that gRPC takes as the value of a metadata entry: printable ASCII, of 512 bytes of `text`.
std::string metadataText(std::string_view text);

}  // namespace arca::vminitd
