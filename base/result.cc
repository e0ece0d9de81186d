#include "base/result.h"

#include <cctype>
#include <cstring>

namespace arca::base {

std::string_view codeName(Code code) {
    switch (code) {
        case Code::kInvalidArgument:
            return "invalidArgument";
        case Code::kNotFound:
            return "notFound";
        case Code::kAlreadyExists:
            return "exists";
        case Code::kFailedPrecondition:
            return "invalidState";
        case Code::kPermissionDenied:
            return "permissionDenied";
        case Code::kUnsupported:
            return "unsupported";
        case Code::kUnavailable:
            return "interrupted";
        case Code::kDeadlineExceeded:
            return "timeout";
        case Code::kSystem:
        case Code::kInternal:
            return "internalError";
    }
    return "internalError";
}

std::string errnoText(int sys_errno) {
    char buffer[128];
    std::string text = ::strerror_r(sys_errno, buffer, sizeof buffer);
    // "Too many levels..." loses its capital; abbreviations such as "RFS specific error" keep
    // theirs.
    if (text.size() > 1 && std::islower(static_cast<unsigned char>(text[1])) != 0) {
        text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
    }
    return text;
}

Error Error::fromErrno(std::string_view what, int sys_errno) {
    Code code = Code::kSystem;
    if (sys_errno == ENOENT) code = Code::kNotFound;
    if (sys_errno == EEXIST) code = Code::kAlreadyExists;
    if (sys_errno == EPERM || sys_errno == EACCES) code = Code::kPermissionDenied;
    return Error(code, std::string(what) + ": " + errnoText(sys_errno), sys_errno);
}

Error&& Error::withContext(std::string_view context) && {
    message_ = std::string(context) + ": " + message_;
    return std::move(*this);
}

}  // namespace arca::base
