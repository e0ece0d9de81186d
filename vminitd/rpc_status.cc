#include "vminitd/rpc_status.h"

#include <string>

#include "base/strings.h"

namespace arca::vminitd {

using base::Code;
using grpc::StatusCode;

namespace {

StatusCode statusCode(Code code) {
    switch (code) {
        case Code::kInvalidArgument:
            return StatusCode::INVALID_ARGUMENT;
        case Code::kNotFound:
            return StatusCode::NOT_FOUND;
        case Code::kAlreadyExists:
            return StatusCode::ALREADY_EXISTS;
        case Code::kFailedPrecondition:
            return StatusCode::FAILED_PRECONDITION;
        case Code::kUnsupported:
            return StatusCode::UNIMPLEMENTED;
        case Code::kUnavailable:
            return StatusCode::UNAVAILABLE;
        case Code::kDeadlineExceeded:
            return StatusCode::DEADLINE_EXCEEDED;
        // What the system said is no part of the protocol's codes.
        case Code::kPermissionDenied:
        case Code::kSystem:
        case Code::kInternal:
            return StatusCode::INTERNAL;
    }
    return StatusCode::INTERNAL;
}

}  // namespace

grpc::Status processStatus(const char* rpc, const char* phrase, const base::Error& error) {
    const Code code = error.code() == Code::kPermissionDenied ? Code::kInternal : error.code();
    return {statusCode(code), std::string(rpc) + ": failed to " + phrase + ": " +
                                  std::string(base::codeName(code)) + ": \"" + error.message() +
                                  "\""};
}

grpc::Status systemStatus(const char* rpc, const base::Error& error) {
    StatusCode code = StatusCode::INTERNAL;
    if (error.code() == Code::kInvalidArgument) code = StatusCode::INVALID_ARGUMENT;
    if (error.code() == Code::kFailedPrecondition) code = StatusCode::FAILED_PRECONDITION;
    return {code, std::string(rpc) + ": " + error.message()};
}

grpc::Status systemStatus(const char* rpc, const base::Result<>& result) {
    return result ? grpc::Status::OK : systemStatus(rpc, result.error());
}

grpc::Status plainStatus(const base::Error& error) {
    return {statusCode(error.code()), error.message()};
}

std::string metadataText(std::string_view text) {
    constexpr size_t kMostBytes = 512;
    std::string value = base::printable(text.substr(0, kMostBytes));
    for (char& c : value)
        if (static_cast<unsigned char>(c) > 0x7e) c = '?';
    return value;
}

}  // namespace arca::vminitd
