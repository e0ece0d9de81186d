#include "runtime/drivers/sandbox_driver.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "arca_extension.pb.h"
#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/strings.h"
#include "base/transport.h"
#include "proto/monitor_protocol.h"
#include "runtime/drivers/attachment.h"
#include "runtime/drivers/host_cgroup.h"
#include "runtime/drivers/sandbox_limits.h"
#include "runtime/rpc_names.h"
#include "sandbox_context.pb.h"
#include "spec/network_annotation.h"
#include "spec/parse.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using proto::MonitorMessage;
namespace context_api = com::apple::containerization::sandbox::v3;
namespace extension_api = arca::sandbox::v1;

namespace {

constexpr std::chrono::seconds kMostDialLimit{10};
constexpr std::chrono::seconds kStatusLimit{2};

}  // namespace

SandboxDriver::SandboxDriver(const SandboxChoice& choice)
    : kind_(choice.kind),
      sandbox_id_(choice.sandbox_id),
      root_fd_(choice.root_fd),
      settings_(choice.settings),
      folder_(choice.root_fd, choice.sandbox_id) {}

// ---- calls ----

std::string SandboxDriver::address() const {
    constexpr std::string_view kConnect = "connect=";
    if (kind_.rfind(kConnect, 0) == 0) return kind_.substr(kConnect.size());
    // Its monitor has written it down where it is another one.
    const auto written = base::readFile(proto::kMonitorAddressFile, 64, folder_.fd());
    if (written) return std::string(base::trim(*written));
    return "hvsock://" + base::fdPath(folder_.fd()) + "/" + proto::kMonitorVsockSocket;
}

Result<std::unique_ptr<GrpcClient>> SandboxDriver::dialAgent() {
    // Without a monitor there is nobody who would relay and wait: then the sandbox has ended.
    ARCA_CHECK(folder_.connect());
    ARCA_TRY(const auto transport, base::openTransport(address()));
    ARCA_TRY(UniqueFd socket,
             transport->dial(base::kAgentPort, std::min(callLimit(), kMostDialLimit)));
    return GrpcClient::open(std::move(socket));
}

Result<> SandboxDriver::connect() {
    if (client_) return {};
    ARCA_TRY(client_, dialAgent());
    return {};
}

Result<> SandboxDriver::call(std::string_view path, const google::protobuf::MessageLite& request,
                             google::protobuf::MessageLite& response) {
    ARCA_CHECK(connect());
    CallOptions options;
    options.timeout = callLimit();
    auto done = client_->call(path, request, response, options);
    if (done) return done;
    if (done.error().code() == Code::kUnavailable) client_.reset();
    return fail(agentError(done.error()));
}

// ---- commands ----

// What the engine has put into the stand-in's network namespace by now, the guest is to have before
// the program runs.
Result<> SandboxDriver::attachNetwork(const ContainerDir& dir, const Record& record) {
    ARCA_TRY(const spec::Spec spec, configuration(dir));
    if (!spec::isNetworkForwarded(spec)) return {};
    const std::string path = "/proc/" + std::to_string(record.init.pid) + "/ns/net";
    ARCA_TRY(const UniqueFd name_space, base::openAt(AT_FDCWD, path, O_RDONLY));
    // Not that of another process which has got the number since.
    if (!base::isAlive(record.init)) return fail(Code::kNotFound, "the container has ended");
    ARCA_TRY(UniqueFd socket, folder_.connect());
    Attachment attachment(std::move(socket), signals_);
    ARCA_CHECK(attachment.send(MonitorMessage::kNetwork, record.id, {name_space.get()}));
    auto attached = attachment.await(MonitorMessage::kNetworkReady, callLimit() + kBootSlack);
    if (attached) return {};
    return fail(std::move(attached).error().withContext("attach the network"));
}

Result<> SandboxDriver::startProcess(const ContainerDir& dir, const Record& record,
                                     const std::string& process_id) {
    context_api::StartProcessRequest request;
    context_api::StartProcessResponse response;
    request.set_id(process_id);
    request.set_containerid(record.id);
    if (process_id == record.id) ARCA_CHECK(attachNetwork(dir, record));
    ARCA_CHECK(connect());
    CallOptions options;
    options.timeout = callLimit();
    watchInterrupts(options);
    auto started = client_->call(ARCA_CONTEXT_RPC("StartProcess"), request, response, options);
    if (!started) return fail(agentError(started.error()));
    if (response.pid() <= 0) return fail(Code::kInternal, "the guest named no process");
    return {};
}

Result<> SandboxDriver::release(const std::string& container_id) {
    auto socket = folder_.connect();
    if (!socket) {
        if (socket.error().code() == Code::kUnavailable) return {};  // nobody holds anything
        return fail(std::move(socket).error());
    }
    Attachment attachment(std::move(*socket), nullptr);
    ARCA_CHECK(attachment.send(MonitorMessage::kRelease, container_id));
    auto released = attachment.await(MonitorMessage::kReleased, kAnswerLimit);
    if (released || released.error().code() == Code::kUnavailable) return {};
    return fail(std::move(released).error());
}

Result<> SandboxDriver::deleteProcess(const std::string& container_id,
                                      const std::string& process_id) {
    context_api::DeleteProcessRequest request;
    context_api::DeleteProcessResponse response;
    request.set_id(process_id);
    request.set_containerid(container_id);
    auto deleted = call(ARCA_CONTEXT_RPC("DeleteProcess"), request, response);
    const bool is_init = process_id == container_id;
    if (!deleted) {
        const Code code = deleted.error().code();
        if (!is_init) {
            // Of an exec this is how the protocol says that it is not known.
            return code == Code::kFailedPrecondition ? Result<>() : deleted;
        }
        // Whatever a guest says or does not say, it holds nothing of the host's: what it could not
        // delete goes with it.
        if (code != Code::kNotFound && code != Code::kUnavailable) {
            base::log::warning("delete in the guest: " + deleted.error().message());
        }
    }
    if (!is_init) return {};
    client_.reset();
    ARCA_CHECK(release(container_id));
    ARCA_TRY(const UniqueFd dir, containerDir(container_id));
    ARCA_CHECK(removeHostCgroup(dir.get()));
    return folder_.remove();
}

Result<> SandboxDriver::signalInit(const ContainerDir&, const Record& record, int signal_number) {
    if (!base::isAlive(record.init)) return fail(Code::kNotFound, "no such process");
    context_api::KillProcessRequest request;
    context_api::KillProcessResponse response;
    request.set_id(record.id);
    request.set_containerid(record.id);
    request.set_signal(signal_number);
    auto sent = call(ARCA_CONTEXT_RPC("KillProcess"), request, response);
    if (sent || signal_number != SIGKILL) return sent;
    // Deleted by its agent: its end is on its way to the stand-in.
    if (sent.error().code() == Code::kNotFound) return sent;
    // The guest does not react. The end of its stand-in ends the process too, and if need be the
    // whole sandbox.
    base::log::warning("kill in the guest: " + sent.error().message());
    ARCA_TRY(const UniqueFd pidfd, base::openPidfd(record.init));
    return base::sendSignal(pidfd.get(), SIGKILL);
}

Result<> SandboxDriver::endByForce(const Record& record) {
    const auto pidfd = base::openPidfd(record.init);
    if (!pidfd) {
        if (pidfd.error().code() == Code::kNotFound) return {};
        return fail(pidfd.error());
    }
    base::log::warning("the guest does not end the container: its stand-in is killed");
    ARCA_CHECK(base::sendSignal(pidfd->get(), SIGKILL));
    ARCA_TRY(const bool ended, base::waitExit(pidfd->get(), kStatusLimit));
    if (!ended) return fail(Code::kDeadlineExceeded, base::texts::kInitStillRunning);
    return {};
}

Result<> SandboxDriver::signalProcess(pid_t pid, int signal_number) {
    if (pid <= 1) return fail(Code::kInternal, "the guest named a process that cannot be");
    context_api::KillRequest request;
    context_api::KillResponse response;
    request.set_pid(pid);
    request.set_signal(signal_number);
    return call(ARCA_CONTEXT_RPC("Kill"), request, response);
}

Result<Status> SandboxDriver::status(const ContainerDir& dir, const Record& record) {
    if (record.stage == Stage::kCreating) {
        return dir.lockedByAnother() ? Status::kCreating : Status::kStopped;
    }
    if (!base::isAlive(record.init)) return Status::kStopped;
    const Status recorded = record.stage == Stage::kCreated ? Status::kCreated : Status::kRunning;
    extension_api::ContainerStateRequest request;
    extension_api::ContainerStateResponse response;
    request.set_container_id(record.id);
    CallOptions options;
    options.timeout = std::min(callLimit(), kStatusLimit);
    Result<> known = connect();
    if (known) {
        known = client_->call(ARCA_EXTENSION_RPC("ContainerState"), request, response, options);
    }
    if (!known) {
        // A guest without our extension, or one that is busy: what the commands have recorded.
        base::log::debug("state in the guest: " + known.error().message());
        return recorded;
    }
    switch (response.status()) {
        case extension_api::ContainerStateResponse::CREATED:
            return Status::kCreated;
        case extension_api::ContainerStateResponse::RUNNING:
            return Status::kRunning;
        case extension_api::ContainerStateResponse::PAUSED:
            return Status::kPaused;
        case extension_api::ContainerStateResponse::STOPPED:
            return Status::kStopped;
        default:
            return recorded;
    }
}

std::string SandboxDriver::lossReason() {
    std::string reason = folder_.failure();
    if (!reason.empty()) return reason;
    auto connection = folder_.connect();
    if (connection) {
        // A monitor that is just ending has let its stand-ins go and can still be connected to, by
        // what the kernel closes last; that connection ends with it.
        (void)base::waitReadable(connection->get(), kStatusLimit);
        reason = folder_.failure();
        if (!reason.empty()) return reason;
        connection = folder_.connect();
    }
    return connection ? std::string() : connection.error().message();
}

Result<spec::Spec> SandboxDriver::configuration(const ContainerDir& dir) {
    ARCA_TRY(const std::string text,
             base::readFile(kGuestConfigFile, spec::kMaxConfigBytes, dir.fd()));
    return spec::parseSpec(text, spec::Source::kWire);
}

}  // namespace arca::runtime
