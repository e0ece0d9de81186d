#include "runtime/body.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/guarded_program.h"
#include "base/process.h"
#include "base/signals.h"
#include "base/socket.h"
#include "runtime/programs.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr unsigned kFirstInherited = 3;

}  // namespace

Result<Body> Body::start(Stdio stdio, int inherited_fds) {
    ARCA_TRY(const Program program, findProgram("vmexec"));
    ARCA_TRY(const UniqueFd file, base::guardedProgram(program.fd, program.path));
    ARCA_TRY(base::SocketPair sync, base::socketPair(SOCK_SEQPACKET));
    UniqueFd null;
    if (stdio == Stdio::kTerminal) {
        ARCA_TRY(null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    }

    std::string sync_number = std::to_string(sync.second.get());
    std::string name = "vmexec";
    std::string flag = "--sync-fd";
    char* const argv[] = {name.data(), flag.data(), sync_number.data(), nullptr};
    const int kept = sync.second.get();
    ARCA_TRY(
        const base::StartedProgram started,
        base::startProgram({.program_fd = file.get(),
                            .stdio = {null.get(), null.get(), null.get()},
                            .first_closed = kFirstInherited + static_cast<unsigned>(inherited_fds),
                            .kept = &kept,
                            .kept_count = 1,
                            .argv = argv,
                            .envp = environ}));
    Body body(started.pid, std::move(sync.first));
    if (started.error != 0) return failErrno("exec " + program.path, started.error);
    ARCA_TRY(body.pidfd_, base::openPidfd(started.pid));
    return body;
}

Body::Body(Body&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::move(other.pidfd_)),
      sync_(std::move(other.sync_)) {}

Body::~Body() {
    if (pid_ == 0) return;
    (void)::kill(pid_, SIGKILL);  // not reaped yet, so the number is still its own
    (void)reap();
}

Result<> Body::reap() {
    if (pid_ == 0) return {};
    const auto code = base::reapChild(std::exchange(pid_, 0));
    if (!code) return fail(code.error());
    return {};
}

Result<> Body::checkEnd() {
    pidfd_.reset();
    if (pid_ == 0) return {};
    ARCA_TRY(const int code, base::reapChild(std::exchange(pid_, 0)));
    constexpr int kSignalled = 128;
    if (code <= kSignalled) return {};
    return fail(Code::kInternal, "vmexec was killed by " + base::signalName(code - kSignalled));
}

void reapEndedChildren() {
    while (::waitpid(-1, nullptr, WNOHANG | __WALL) > 0) {
    }
}

}  // namespace arca::runtime
