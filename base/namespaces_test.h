// For tests of what only root can do, and only where it harms nobody: a child with mount and
// network namespaces of its own.
#pragma once

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>
#include <functional>
#include <string>

#include "base/files.h"
#include "base/unique_fd.h"

namespace arca::base {

// What did not hold, a line each.
struct Claims {
    std::string broken;
    void check(bool holds, const std::string& claim) {
        if (!holds) broken += claim + "\n";
    }
    template <typename Result>
    void works(const Result& result, const std::string& claim) {
        if (!result) broken += claim + ": " + result.error().message() + "\n";
    }
};

inline bool isRoot() {
    return ::geteuid() == 0;
}

// Gives what was broken; "" is what a test wants.
inline std::string inNamespaces(const std::function<void(Claims&)>& body) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return "pipe";
    base::UniqueFd in(ends[0]);
    base::UniqueFd out(ends[1]);
    const pid_t child = ::fork();
    if (child == 0) {
        Claims claims;
        try {
            if (::unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
                ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
                claims.broken = "cannot make namespaces";
            } else {
                body(claims);
            }
        } catch (const std::exception& e) {
            claims.broken += e.what();
        }
        (void)base::writeAll(out.get(), claims.broken);
        ::_exit(0);
    }
    out.reset();
    auto broken = base::readAll(in.get(), size_t{1} << 20U);
    int status = 0;
    (void)::waitpid(child, &status, 0);
    if (status != 0) return "the child ended with status " + std::to_string(status);
    return broken ? *broken : broken.error().message();
}

}  // namespace arca::base
