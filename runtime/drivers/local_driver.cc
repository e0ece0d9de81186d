#include "runtime/drivers/local_driver.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/socket.h"
#include "proto/body_protocol.h"
#include "runtime/body.h"
#include "runtime/drivers/agent_launcher.h"
#include "runtime/freezer.h"
#include "runtime/rpc_names.h"
#include "sandbox_context.pb.h"
#include "spec/parse.h"
#include "spec/write.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;
using proto::BodyMessage;
namespace context_api = com::apple::containerization::sandbox::v3;

constexpr char kGuestDir[] = "guest";
constexpr char kGateSocket[] = "gate.sock";
constexpr std::chrono::seconds kCreatedPatience{10};

// The CLI's end of the conversation on attach.sock while a process is made.
class Attachment {
 public:
    Attachment(UniqueFd socket, const ProcessRequest& request, bool& hooks_began)
        : socket_(std::move(socket)), request_(request), hooks_began_(hooks_began) {}

    // Hands the body over.
    Result<> begin(Body& body) {
        const std::string names = request_.container_id + '\0' + request_.process_id + '\0';
        ARCA_CHECK(base::sendMessage(socket_.get(),
                                     encodeBodyMessage(BodyMessage::kAttach, 0, names),
                                     {body.syncSocket().get(), body.pidfd()}));
        body.syncSocket().reset();
        return {};
    }

    [[nodiscard]] int fd() const { return socket_.get(); }

    // Takes one message. At the agent's end of the connection fd() becomes invalid.
    Result<> receive(std::optional<std::chrono::milliseconds> timeout = std::nullopt) {
        ARCA_TRY(std::optional<base::Message> message,
                 base::receiveMessage(socket_.get(), timeout));
        if (!message) {
            socket_.reset();
            return {};
        }
        const auto packet = proto::decodeBodyMessage(message->data);
        if (!packet) return fail(Code::kInternal, "the agent sent an empty message");
        switch (packet->type) {
            case BodyMessage::kRunHooks:
                return runHooks(packet->value);
            case BodyMessage::kCreated:
                return created(*packet, *message);
            case BodyMessage::kBodyWarning:
                base::log::warning(packet->text);
                return {};
            default:
                return fail(Code::kInternal,
                            "the agent sent message " +
                                std::to_string(static_cast<unsigned>(packet->type)) +
                                " while a process is being made");
        }
    }

    // What kCreated said; waits for it if it has not come yet.
    Result<MadeProcess> takeProcess() {
        while (process_.identity.pid == 0) {
            if (!socket_.valid()) {
                return fail(Code::kInternal, "the agent did not say which process it made");
            }
            ARCA_CHECK(receive(kCreatedPatience));
        }
        return std::move(process_);
    }

 private:
    Result<> runHooks(pid_t pid) {
        hooks_began_ = true;
        Result<> ran;
        if (request_.run_hooks) ran = request_.run_hooks(pid);
        return base::sendMessage(socket_.get(),
                                 encodeBodyMessage(BodyMessage::kHooksDone, 0,
                                                   ran ? std::string() : ran.error().message()));
    }

    Result<> created(const proto::BodyPacket& packet, base::Message& message) {
        process_.identity.pid = packet.value;
        if (request_.stdio != Stdio::kTerminal) return {};
        if (message.fds.empty()) {
            return fail(Code::kInternal, "the agent sent no terminal");
        }
        process_.terminal = std::move(message.fds.front());
        return {};
    }

    UniqueFd socket_;
    const ProcessRequest& request_;
    bool& hooks_began_;
    MadeProcess process_;
};

// The container's directories in the hierarchy of cgroup v1 that has `controller`, and in that of
// v2, from the agent's record. Empty when that is not there (yet).
std::vector<std::string> cgroupPaths(const ContainerDir& dir, std::string_view controller) {
    constexpr size_t kMaxBytes = size_t{1} << 20U;
    std::vector<std::string> paths;
    const auto text = base::readFile(std::string(kGuestDir) + "/init.json", kMaxBytes, dir.fd());
    if (!text) return paths;
    const auto json = nlohmann::json::parse(*text, nullptr, false);
    if (!json.is_object() || !json.contains("cgroups")) return paths;
    for (const auto& cgroup : json["cgroups"]) {
        const std::string controllers = cgroup.value("controllers", "");
        const bool wanted =
            controllers.empty() || controllers.find(controller) != std::string::npos;
        if (wanted) paths.push_back(cgroup.value("path", ""));
    }
    return paths;
}

std::vector<std::string> freezerPaths(const ContainerDir& dir) {
    return cgroupPaths(dir, "freezer");
}

// cgroup v1 tells by an eventfd that is registered in the cgroup.
UniqueFd watchOomV1(const std::string& path) {
    UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const auto control = base::openAt(AT_FDCWD, path + "/memory.oom_control", O_RDONLY);
    if (!event.valid() || !control) return UniqueFd();
    const std::string line = std::to_string(event.get()) + " " + std::to_string(control->get());
    if (!base::writeControlFile(AT_FDCWD, path + "/cgroup.event_control", line)) return UniqueFd();
    return event;
}

// cgroup v2 tells by a change of a file.
UniqueFd watchOomV2(const std::string& path) {
    UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!watch.valid()) return UniqueFd();
    const std::string file = path + "/memory.events";
    if (::inotify_add_watch(watch.get(), file.c_str(), IN_MODIFY) < 0) return UniqueFd();
    return watch;
}

// True while the init waits at its gate: the socket is there and somebody listens on it.
bool waitsAtGate(const ContainerDir& dir) {
    auto guest = base::openAt(dir.fd(), kGuestDir, O_PATH | O_DIRECTORY);
    if (!guest) return false;
    return base::connectUnix(guest->get(), kGateSocket, SOCK_SEQPACKET).has_value();
}

}  // namespace

Result<> LocalDriver::connect() {
    if (client_) return {};
    if (key_.empty()) {
        ARCA_TRY(key_, agentKey());
    }
    ARCA_TRY(UniqueFd socket, connectAgent(root_fd_, key_));
    ARCA_TRY(client_, GrpcClient::open(std::move(socket)));
    return {};
}

Result<> LocalDriver::call(std::string_view path, const google::protobuf::MessageLite& request,
                           google::protobuf::MessageLite& response) {
    constexpr int kTries = 2;
    for (int i = 1;; ++i) {
        Result<> done = connect();
        if (done) done = client_->call(path, request, response);
        if (done) return done;
        if (done.error().code() == Code::kUnavailable) {
            client_.reset();
            if (i < kTries) continue;
        }
        return fail(agentError(done.error()));
    }
}

Result<MadeProcess> LocalDriver::createProcess(const ProcessRequest& request) {
    bool hooks_began = false;
    auto made = tryCreate(request, hooks_began);
    if (made || made.error().code() != Code::kUnavailable || hooks_began) return made;
    // The agent was gone or went: nothing has been run for the container yet, so it can be tried
    // again with a new one once its predecessor's remains are removed.
    client_.reset();
    auto removed = deleteProcess(request.container_id, request.process_id);
    if (!removed) return made;
    return tryCreate(request, hooks_began);
}

Result<MadeProcess> LocalDriver::tryCreate(const ProcessRequest& request, bool& hooks_began) {
    ARCA_CHECK(connect());
    ARCA_TRY(UniqueFd socket, connectAttach(root_fd_, key_));
    ARCA_TRY(Body body, Body::start(request.stdio, request.inherited_fds));
    if (request.place_body) ARCA_CHECK(request.place_body(body.pid()));
    Attachment attachment(std::move(socket), request, hooks_began);
    ARCA_CHECK(attachment.begin(body));

    context_api::CreateProcessRequest message;
    context_api::CreateProcessResponse response;
    message.set_id(request.process_id);
    message.set_containerid(request.container_id);
    message.set_configuration(spec::writeSpec(*request.spec));
    message.set_options(request.options);
    CallOptions options;
    options.timeout = std::nullopt;  // hooks may take any time; a dead agent ends the call
    // A watch is over when its descriptor becomes -1.
    options.watches.push_back({attachment.fd(), {}});
    options.watches.push_back({body.pidfd(), {}});
    options.watches[0].ready = [&] {
        Result<> done = attachment.receive();
        options.watches[0].fd = attachment.fd();
        return done;
    };
    options.watches[1].ready = [&] {
        Result<> done = body.checkEnd();
        options.watches[1].fd = body.pidfd();
        return done;
    };
    watchInterrupts(options);
    auto created = client_->call(ARCA_CONTEXT_RPC("CreateProcess"), message, response, options);
    if (!created) return fail(agentError(created.error()));
    ARCA_TRY(MadeProcess made, attachment.takeProcess());
    ARCA_CHECK(body.reap());
    ARCA_TRY(made.identity.start_time_ticks, base::processStartTime(made.identity.pid));
    return made;
}

Result<> LocalDriver::startProcess(const ContainerDir& dir, const Record& record,
                                   const std::string& process_id) {
    const bool is_init = process_id == record.id;
    context_api::StartProcessRequest request;
    context_api::StartProcessResponse response;
    request.set_id(process_id);
    request.set_containerid(record.id);
    CallOptions options;
    options.timeout = std::nullopt;  // startContainer hooks
    constexpr int kTries = 2;
    for (int i = 1;; ++i) {
        Result<> started = connect();
        if (started) {
            started = client_->call(ARCA_CONTEXT_RPC("StartProcess"), request, response, options);
        }
        if (started) return {};
        if (started.error().code() != Code::kUnavailable) return fail(agentError(started.error()));
        client_.reset();
        // The agent died. Perhaps it had opened the gate: then the program runs, or has run.
        if (is_init && !waitsAtGate(dir) && base::isAlive(record.init)) return {};
        if (i == kTries) return fail(agentError(started.error()));
    }
}

Result<> LocalDriver::deleteProcess(const std::string& container_id,
                                    const std::string& process_id) {
    context_api::DeleteProcessRequest request;
    context_api::DeleteProcessResponse response;
    request.set_id(process_id);
    request.set_containerid(container_id);
    const bool is_init = process_id == container_id;
    // An agent that is still taking back what a dead command began says so: that passes.
    constexpr int kTries = 1000;
    const timespec pause{0, 10'000'000};
    for (int i = 1;; ++i) {
        auto deleted = call(ARCA_CONTEXT_RPC("DeleteProcess"), request, response);
        if (deleted || deleted.error().code() == Code::kNotFound) return {};
        const bool precondition = deleted.error().code() == Code::kFailedPrecondition;
        // Of an exec this is also how the protocol says that it is not known.
        if (precondition && !is_init) return {};
        if (!precondition || i == kTries) return deleted;
        (void)::nanosleep(&pause, nullptr);
    }
}

Result<> LocalDriver::signalInit(const ContainerDir& dir, const Record& record, int signal_number) {
    // No agent is needed for a signal to a process of this host, and the start time makes sure
    // that it is still the same one.
    ARCA_TRY(UniqueFd pidfd, base::openPidfd(record.init));
    if (!base::isAlive(record.init)) {
        return fail(Code::kNotFound, "no such process");  // a zombie would take it silently
    }
    ARCA_CHECK(base::sendSignal(pidfd.get(), signal_number));
    // The v1 freezer holds even SIGKILL back.
    if (signal_number == SIGKILL) return thaw(freezerPaths(dir));
    return {};
}

UniqueFd LocalDriver::watchOom(const ContainerDir& dir) {
    for (const std::string& path : cgroupPaths(dir, "memory")) {
        UniqueFd watch = watchOomV2(path);
        if (!watch.valid()) watch = watchOomV1(path);
        if (watch.valid()) return watch;
    }
    return UniqueFd();
}

Result<Status> LocalDriver::status(const ContainerDir& dir, const Record& record) {
    if (record.stage == Stage::kCreating) {
        // Its creator holds the lock; a creator that died has left something half-made.
        return dir.lockedByAnother() ? Status::kCreating : Status::kStopped;
    }
    if (!base::isAlive(record.init)) return Status::kStopped;
    if (isFrozen(freezerPaths(dir))) return Status::kPaused;
    if (record.stage == Stage::kCreated && waitsAtGate(dir)) return Status::kCreated;
    return Status::kRunning;
}

Result<spec::Spec> LocalDriver::configuration(const ContainerDir& dir) {
    ARCA_TRY(const std::string text, base::readFile(std::string(kGuestDir) + "/config.json",
                                                    spec::kMaxConfigBytes, dir.fd()));
    return spec::parseSpec(text, spec::Source::kWire);
}

Result<> LocalDriver::endByForce(const Record&) {
    return fail(Code::kDeadlineExceeded, base::texts::kInitStillRunning);
}

Result<> LocalDriver::signalProcess(pid_t pid, int signal_number) {
    // A pidfd, so that the number cannot be reused between here and the signal; that it still was
    // the container's when it was opened is as much as can be had.
    const auto pidfd = base::openPidfd(pid);
    if (!pidfd && pidfd.error().code() == Code::kNotFound) return {};
    if (!pidfd) return fail(pidfd.error());
    auto sent = base::sendSignal(pidfd->get(), signal_number);
    if (!sent && sent.error().code() == Code::kNotFound) return {};
    return sent;
}

}  // namespace arca::runtime
