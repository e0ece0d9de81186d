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

// Runs beside the process that the filter confines, in a thread without one: the filter may well
// refuse or suspend the calls that this takes.
void handOver(const Channel& connection, int listener) {
    auto sent = connection.send(BodyMessage::kListener, 0, {}, listener);
    if (!sent) connection.die(sent.error());
    // Without an answer there is nobody who would decide about the program's calls.
    if (!connection.expect(BodyMessage::kListenerPassed, "kListenerPassed")) ::_exit(1);
}

Result<> confine(const GateInput& input, const Channel& connection) {
    if (input.seccomp_program.empty()) return {};
    if (!input.seccomp_notify) return loadSeccomp(input.seccomp_program, input.seccomp_flags);
    return loadSeccompWithListener(input.seccomp_program, input.seccomp_flags,
                                   [&](int listener) { handOver(connection, listener); });
}

// write(2) and not sendmsg(2): hardly a filter refuses it.
void reportUnderFilter(const Channel& connection, const base::Error& error) {
    const std::string packet = proto::encodeBodyMessage(BodyMessage::kFailure, error.sysErrno(),
                                                        error.message());
    if (::write(connection.fd(), packet.data(), packet.size()) >= 0) ::_exit(1);
}

// Under the filter as little as possible is called: the program's calls are all that it was made
// for.
Result<> execute(const GateInput& input, const Channel& connection) {
    const std::vector<char*> argv = pointers(input.args);
    const std::vector<char*> envp = pointers(input.env);
    ARCA_CHECK(base::closeOnExecFrom(3 + input.preserve_fds));
    releaseSignals();
    ARCA_CHECK(confine(input, connection));
    (void)::execve(input.program.c_str(), argv.data(), envp.data());
    const auto failed = failErrno("exec " + base::printable(input.program));
    if (!input.seccomp_program.empty()) reportUnderFilter(connection, failed.value());
    return failed;
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
