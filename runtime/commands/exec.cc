// exec: another process in a container that has not ended.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

#include "base/error_texts.h"
#include "base/log.h"
#include "runtime/body.h"
#include "runtime/bundle.h"
#include "runtime/commands/commands.h"
#include "runtime/exec_process.h"
#include "runtime/foreground.h"
#include "runtime/lifecycle.h"
#include "runtime/pid_file.h"
#include "runtime/sockets.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
namespace texts = base::texts;

Result<> checkStatus(Container& container, bool ignore_paused) {
    ARCA_TRY(const Status status, container.status());
    if (status == Status::kStopped || status == Status::kCreating) {
        return fail(Code::kFailedPrecondition, texts::kExecStopped);
    }
    if (status == Status::kPaused && !ignore_paused) {
        return fail(Code::kFailedPrecondition, texts::kExecPaused);
    }
    return {};
}

// Never used twice, even when this process's number comes again while its exec still runs.
std::string newExecId() {
    timespec now{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &now);
    char text[64];
    (void)std::snprintf(text, sizeof text, "exec-%d-%llx%08lx", ::getpid(),
                        static_cast<unsigned long long>(now.tv_sec),
                        static_cast<unsigned long>(now.tv_nsec));
    return text;
}

Result<spec::Process> wantedProcess(const Context& context, Container& container) {
    const Arguments& arguments = context.arguments;
    if (arguments.given("process")) return processFromFile(arguments.text("process"));
    if (arguments.positional().size() < 2) {
        return fail(Code::kInvalidArgument, texts::kExecArgsEmpty);
    }
    ARCA_TRY(spec::Spec own, container.driver->configuration(container.dir));
    if (!own.process) return fail(Code::kInternal, "the container's record names no process");
    return processFromFlags(arguments, std::move(*own.process), container.record.home_given);
}

// `wrapper`: where the configuration is kept for as long as the request is used.
Result<ProcessRequest> execRequest(const Context& context, const Container& container,
                                   spec::Process process, spec::Spec& wrapper) {
    const Arguments& arguments = context.arguments;
    ProcessOptions options;
    options.bundle = container.record.bundle;
    options.preserve_fds = context.fds.count;
    options.ignore_paused = arguments.isSet("ignore-paused");
    options.cgroups = arguments.list("cgroup");

    ProcessRequest request;
    request.container_id = container.record.id;
    request.applies_labels = container.record.applies_labels;
    request.process_id = newExecId();
    request.stdio = process.terminal ? Stdio::kTerminal : Stdio::kInherit;
    wrapper.ociVersion = container.record.oci_version;
    wrapper.root = spec::Root{container.record.rootfs, false};
    wrapper.process = std::move(process);
    request.spec = &wrapper;
    request.options = writeOptions(options);
    request.inherited_fds = context.fds.count;
    return request;
}

// Ends what has been made when a later step of this call fails.
void undoExec(Container& container, const std::string& process_id, const MadeProcess& made) {
    if (const auto pidfd = base::openPidfd(made.identity)) {
        (void)base::sendSignal(pidfd->get(), SIGKILL);
        constexpr std::chrono::seconds kPatience{10};
        (void)base::waitExit(pidfd->get(), kPatience);
    }
    (void)container.driver->deleteProcess(container.record.id, process_id);
    reapEndedChildren();
}

Result<> startExec(const Context& context, Container& container, const ProcessRequest& request,
                   const HandOver& sockets, const MadeProcess& made, const ForegroundJob& job) {
    // First the terminal, then the program: nothing that it prints may be lost.
    if (made.terminal.valid()) ARCA_CHECK(sendTerminal(sockets, made.terminal.get()));
    ARCA_CHECK(sendPidfd(sockets, made.identity, "setns"));
    ARCA_CHECK(prepareTerminal(job));
    auto started =
        container.driver->startProcess(container.dir, container.record, request.process_id);
    if (!started) return fail(processError(started.error()));
    return writePidFile(context.arguments.text("pid-file"), made.identity.pid);
}

}  // namespace

Result<int> execCommand(Context& context) {
    const Arguments& arguments = context.arguments;
    const bool detach = arguments.isSet("detach");
    ARCA_TRY(const SignalInbox signals, SignalInbox::open());
    ARCA_TRY(Container container,
             openContainer(context, arguments.positional().front(), Lock::kNone));
    ARCA_CHECK(checkStatus(container, arguments.isSet("ignore-paused")));
    ARCA_TRY(spec::Process process, wantedProcess(context, container));
    ARCA_CHECK(checkTerminal(process.terminal, detach, arguments.given("console-socket")));
    ARCA_TRY(const HandOver sockets,
             connectHandOver(arguments.text("console-socket"), arguments.text("pidfd-socket")));
    spec::Spec wrapper;
    ARCA_TRY(const ProcessRequest request,
             execRequest(context, container, std::move(process), wrapper));
    container.driver->setInterrupts(&signals);
    auto made = container.driver->createProcess(request);
    if (!made) {
        (void)container.driver->deleteProcess(container.record.id, request.process_id);
        reapEndedChildren();
        return fail(processError(made.error()));
    }
    ForegroundJob job;
    job.process = made->identity;
    auto started = startExec(context, container, request, sockets, *made, job);
    if (!started) {
        undoExec(container, request.process_id, *made);
        return fail(std::move(started).error());
    }
    if (detach) return 0;

    job.terminal = std::move(made->terminal);
    job.on_long_wait = [&] { container.driver->disconnect(); };
    ARCA_TRY(const int code, waitInForeground(job, signals));
    reportLoss(container, code);
    // The record goes with the container at the latest; the exit code is what counts here.
    auto deleted = container.driver->deleteProcess(container.record.id, request.process_id);
    if (!deleted) base::log::debug(deleted.error().message());
    return code;
}

}  // namespace arca::runtime
