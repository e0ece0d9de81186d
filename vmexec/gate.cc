#include "vmexec/gate.h"

#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/strings.h"
#include "hooks/hook_runner.h"
#include "vmexec/channel.h"
#include "vmexec/console.h"
#include "vmexec/seccomp.h"
#include "vmexec/signals.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;

namespace {

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> out;
    out.reserve(strings.size() + 1);
    for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
    out.push_back(nullptr);
    return out;
}

// To be told apart from kWarning and kFailure, which come over the gate too.
constexpr auto kListener = static_cast<BodyMessage>(11);

struct Started {
    Channel connection;
    Channel::Received message;
};

// The first connection that really asks for a start. One that closes without a word is somebody who
// looked whether the container still waits.
Started waitForStart(const GateInput& input) {
    while (true) {
        if (!waitReadableOrDie(input.listener.get(), input.signals.get())) ::_exit(1);
        UniqueFd socket(::accept4(input.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket.valid()) {
            if (errno == EINTR || errno == ECONNABORTED || errno == EAGAIN) continue;
            ::_exit(1);
        }
        Channel connection(std::move(socket));
        auto message = connection.expect(BodyMessage::kStart, "kStart", input.signals.get());
        if (message) return {std::move(connection), std::move(*message)};
    }
}

Result<> runStartHooks(const GateInput& input) {
    if (input.start_hooks.empty()) return {};
    return hooks::runHooks(input.start_hooks, {.kind = "startContainer",
                                               .state = input.state,
                                               .cwd = input.cwd,
                                               .default_env = input.env});
}

// Under the filter as little as possible is called: the program's calls are all that it was made
// for.
Result<> execute(const GateInput& input, const Channel& connection) {
    const std::vector<char*> argv = pointers(input.args);
    const std::vector<char*> envp = pointers(input.env);
    ARCA_CHECK(base::closeOnExecFrom(3 + input.preserve_fds));
    releaseSignals();
    if (!input.seccomp_program.empty()) {
        ARCA_TRY(const UniqueFd listener,
                 loadSeccomp(input.seccomp_program, input.seccomp_flags,
                             input.seccomp_notify ? SeccompListener::kYes : SeccompListener::kNo));
        if (listener.valid()) ARCA_CHECK(connection.send(kListener, 0, {}, listener.get()));
    }
    (void)::execve(input.program.c_str(), argv.data(), envp.data());
    return failErrno("exec " + base::printable(input.program));
}

Result<> start(const GateInput& input, const Started& started) {
    if (started.message.value == 1 && input.terminal)
        ARCA_CHECK(setWindowSize(0, started.message.text));
    if (input.program.empty()) return fail(Code::kInvalidArgument, base::texts::kProcessMissing);
    ARCA_CHECK(runStartHooks(input));
    return execute(input, started.connection);
}

}  // namespace

void waitAndExecute(GateInput input) {
    // What parsing and set-up used goes back to the kernel.
    (void)::malloc_trim(0);
    const Started started = waitForStart(input);
    const auto failed = start(input, started);
    started.connection.die(failed.error());
}

}  // namespace arca::vmexec
