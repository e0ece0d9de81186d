// The project's one error type, and the value-or-error that carries it.
//
// Why not exceptions: the code that matters most runs between clone and exec, where unwinding is
// unsafe, and gRPC handlers need a status anyway. Libraries may throw; the one wrapper that calls
// the library turns that into an Error.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace arca::base {

// What went wrong, in the terms that both a CLI exit code and a gRPC status can be made of.
enum class Code {
    kInvalidArgument,     // the caller's input is wrong, whatever the system's state
    kNotFound,            // a named object is not there
    kAlreadyExists,       // a named object is there already
    kFailedPrecondition,  // the object is in the wrong state for the operation
    kPermissionDenied,    // the kernel or a peer check said no
    kUnsupported,         // known, but not offered by this build, driver, kernel or guest
    kUnavailable,         // the peer is gone or cannot be reached; a later try may work
    kDeadlineExceeded,    // a wait ran past its limit
    kSystem,              // a system call failed; `sysErrno` says how
    kInternal,            // a broken promise between our own parts
};

// The name of `code` in the spelling of the guest protocol's messages (`invalidArgument`, ...).
std::string_view codeName(Code code);

class Error {
 public:
    Error(Code code, std::string message, int sys_errno = 0)
        : code_(code), sys_errno_(sys_errno), message_(std::move(message)) {}

    // An Error of kSystem (ENOENT: kNotFound, EEXIST: kAlreadyExists, EPERM/EACCES:
    // kPermissionDenied) whose message is "`what`: strerror text in lower case as the kernel's
    // users know it". `what` is operation and object: "open /a/b".
    static Error fromErrno(std::string_view what, int sys_errno = errno);

    [[nodiscard]] Code code() const { return code_; }
    // 0 when no system call was involved.
    [[nodiscard]] int sysErrno() const { return sys_errno_; }
    // One line, "operation, object, reason", no trailing full stop.
    [[nodiscard]] const std::string& message() const { return message_; }

    // Puts "`context`: " in front of the message. For a caller that knows more than its callee.
    Error&& withContext(std::string_view context) &&;

 private:
    Code code_;
    int sys_errno_;
    std::string message_;
};

// The text of `sys_errno` as callers of container runtimes match it: the words of Go's syscall
// table, which are strerror(3)'s in lower case ("no such file or directory").
std::string errnoText(int sys_errno);

template <typename T = void>
using Result = tl::expected<T, Error>;

// Makes the error side of a Result.
inline tl::unexpected<Error> fail(Code code, std::string message, int sys_errno = 0) {
    return tl::unexpected<Error>(Error(code, std::move(message), sys_errno));
}
inline tl::unexpected<Error> fail(Error error) {
    return tl::unexpected<Error>(std::move(error));
}
inline tl::unexpected<Error> failErrno(std::string_view what, int sys_errno = errno) {
    return tl::unexpected<Error>(Error::fromErrno(what, sys_errno));
}

}  // namespace arca::base

#define ARCA_CONCAT_INNER(a, b) a##b
#define ARCA_CONCAT(a, b) ARCA_CONCAT_INNER(a, b)

// ARCA_TRY(decl, expr): evaluates `expr` (a Result<T>), returns its error from the enclosing
// function, else initialises `decl` with the value.
#define ARCA_TRY(decl, ...)                                                              \
    auto ARCA_CONCAT(arca_result_, __LINE__) = (__VA_ARGS__);                            \
    if (!ARCA_CONCAT(arca_result_, __LINE__))                                            \
        return ::tl::unexpected(std::move(ARCA_CONCAT(arca_result_, __LINE__)).error()); \
    decl = std::move(*ARCA_CONCAT(arca_result_, __LINE__))

// ARCA_CHECK(expr): the same for a Result<> whose value does not matter.
#define ARCA_CHECK(...)                                                                        \
    do {                                                                                       \
        auto arca_check_result = (__VA_ARGS__);                                                \
        if (!arca_check_result) return ::tl::unexpected(std::move(arca_check_result).error()); \
    } while (false)
