// SandboxDriver: how a container or a process is made in a guest.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "arca_extension.pb.h"
#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "proto/monitor_protocol.h"
#include "runtime/drivers/attachment.h"
#include "runtime/drivers/host_cgroup.h"
#include "runtime/drivers/network_plan.h"
#include "runtime/drivers/sandbox_driver.h"
#include "runtime/drivers/sandbox_limits.h"
#include "runtime/drivers/strict_spec.h"
#include "runtime/drivers/vm_config.h"
#include "runtime/rpc_names.h"
#include "sandbox_context.pb.h"
#include "spec/parse.h"
#include "spec/write.h"

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

struct TerminalPair {
    UniqueFd master, slave;
};

// The guest's terminal does the editing and the echo; this one only carries bytes, and its size.
Result<TerminalPair> makeTerminal(const std::optional<spec::ConsoleSize>& size) {
    TerminalPair pair;
    pair.master.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!pair.master.valid()) return failErrno("open a terminal");
    int unlock = 0;
    if (::ioctl(pair.master.get(), TIOCSPTLCK, &unlock) != 0) return failErrno("unlock a terminal");
    pair.slave.reset(::ioctl(pair.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!pair.slave.valid()) return failErrno("open a terminal's other side");
    termios mode{};
    if (::tcgetattr(pair.slave.get(), &mode) != 0) return failErrno("read a terminal's mode");
    ::cfmakeraw(&mode);
    if (size) {
        winsize window{};
        window.ws_row = static_cast<unsigned short>(size->height);
        window.ws_col = static_cast<unsigned short>(size->width);
        if (::ioctl(pair.master.get(), TIOCSWINSZ, &window) != 0) {
            return failErrno("set a terminal's size");
        }
    }
    if (::tcsetattr(pair.slave.get(), TCSANOW, &mode) != 0) return failErrno("set a terminal raw");
    return pair;
}

}  // namespace

Result<MonitorConfig> SandboxDriver::monitorConfig(const ProcessRequest& request) const {
    const spec::Spec& spec = *request.spec;
    if (kind_ == "vm") {
        ARCA_TRY(MonitorConfig config, makeVmConfig(settings_->vm, spec, sandbox_id_));
        config.call_limit = callLimit();
        if (!settings_->vm.rootfs_image.empty()) {
            if (::access(settings_->vm.rootfs_image.c_str(), R_OK | W_OK) != 0) {
                return failErrno("open " + base::printable(settings_->vm.rootfs_image));
            }
            config.disks.push_back("rw:" + settings_->vm.rootfs_image);
        }
        const GuestFiles files = guestFilesOf(kind_, *settings_);
        config.share = files.uses(GuestFiles::Way::kShare);
        config.card =
            settings_->vm.network == "auto" && mayHaveInterfaces(spec, request.may_be_plugged);
        if (!settings_->vm.memory_mib) config.memory_mib += copyMemoryMib(files, spec);
        return config;
    }
    MonitorConfig config;
    config.sandbox_id = sandbox_id_;
    config.address = address();
    config.boot_limit = callLimit();
    config.call_limit = callLimit();
    return config;
}

Result<std::vector<SandboxMember>> SandboxDriver::members() const {
    std::vector<SandboxMember> found;
    ARCA_TRY(const UniqueFd root, base::openAt(root_fd_, ".", O_RDONLY | O_DIRECTORY));
    ARCA_TRY(const std::vector<std::string> names, base::listDir(root.get()));
    for (const std::string& name : names) {
        if (name.front() == '@') continue;
        const auto text = base::readFile(name + "/state.json", size_t{1} << 20U, root.get());
        const auto record = parseRecord(text.value_or(""));
        if (!record || record->sandbox_id != sandbox_id_ || record->init.pid <= 0) continue;
        if (record->sandbox != "local") found.push_back({record->id, record->init.pid});
    }
    return found;
}

Result<std::string> SandboxDriver::namespaceInGuest(const SandboxMember& member,
                                                    const std::string& kind) {
    ARCA_TRY(const auto response, containerState(member.id));
    if (response.pid() <= 0) return fail(Code::kNotFound, member.id + ": its process has ended");
    return "/proc/" + std::to_string(response.pid()) + "/ns/" + kind;
}

// Another container of this sandbox has that stand-in: what is meant is its init in the guest.
Result<std::string> SandboxDriver::guestNamespace(const std::string& path) {
    long pid = 0;
    std::string kind;
    if (parseNamespacePath(path, pid, kind)) {
        ARCA_TRY(const std::vector<SandboxMember> all, members());
        for (const SandboxMember& member : all) {
            if (member.pid == pid) return namespaceInGuest(member, kind);
        }
    }
    return fail(Code::kUnsupported, "namespace " + base::printable(path) +
                                        ": of this host, which the guest cannot join");
}

Result<> SandboxDriver::planGuestNetwork(const ProcessRequest& request, GuestSpec& guest) {
    NetworkSituation situation;
    const Settings none;
    const Settings& settings = settings_ != nullptr ? *settings_ : none;
    situation.forwards =
        kind_ == "vm" ? settings.vm.network != "none" : settings.connect.network == "forwarder";
    situation.may_be_plugged = request.may_be_plugged;
    situation.owns_sandbox = request.container_id == sandbox_id_;
    if (!guest.network_namespace.empty()) {
        ARCA_TRY(situation.members, members());
    }
    situation.guest_namespace = [this](const SandboxMember& member) {
        return namespaceInGuest(member, "net");
    };
    return planNetwork(guest, situation);
}

Result<GuestSpec> SandboxDriver::guestSpec(const ProcessRequest& request) {
    if (request.inherited_fds > 0) {
        return fail(Code::kUnsupported,
                    "descriptors (--preserve-fds, LISTEN_FDS) cannot be passed into a guest");
    }
    const bool is_init = request.process_id == request.container_id;
    if (is_init) {
        const Placements places =
            placementsOf(guestFilesOf(kind_, *settings_), request.container_id, *settings_);
        auto made = makeGuestSpec(*request.spec, request.container_id, places,
                                  [this](const std::string& path) { return guestNamespace(path); });
        if (!made) return made;
        // In somebody else's guest nothing of the host is mounted below the container's own folder,
        // which its agent deletes with all that is in it.
        if (kind_ != "vm") made->spec.root->path = made->shares.front().guest_path;
        if (!request.applies_labels) leaveLabelsOut(made->spec);
        ARCA_CHECK(planGuestNetwork(request, *made));
        return made;
    }
    GuestSpec guest;
    guest.spec = *request.spec;
    guest.spec.root->path = guestRootfs(request.container_id);
    if (!request.applies_labels) leaveLabelsOut(guest.spec);
    if (kind_ != "vm") {
        ARCA_TRY(const UniqueFd dir, containerDir(request.container_id));
        ARCA_TRY(const std::string text,
                 base::readFile(kGuestConfigFile, spec::kMaxConfigBytes, dir.get()));
        ARCA_TRY(const spec::Spec own, spec::parseSpec(text, spec::Source::kWire));
        if (own.root) guest.spec.root->path = own.root->path;
    }
    return guest;
}

Result<> SandboxDriver::mountRootfs(const std::string& container_id, const GuestFiles& files,
                                    const SharedPath& root) {
    context_api::MountRequest request;
    context_api::MountResponse response;
    request.set_destination(guestRootfs(container_id));
    if (files.rootfs == GuestFiles::Way::kMount) {
        request.set_type(files.device.type);
        request.set_source(files.device.path);
        for (const std::string& option : files.device.options) request.add_options(option);
    } else if (files.rootfs == GuestFiles::Way::kShare) {
        request.set_type("none");
        request.set_source(root.guest_path);
        for (const std::string& word : restrictionsOf(root.source)) request.add_options(word);
        request.add_options("rbind");
    } else {
        return {};
    }
    return call(ARCA_CONTEXT_RPC("Mount"), request, response);
}

Result<SandboxDriver::GuestAgent> SandboxDriver::askAgent() {
    if (kind_ == "vm") return GuestAgent{true, true};
    extension_api::VersionResponse response;
    auto known = call(ARCA_EXTENSION_RPC("Version"), extension_api::VersionRequest(), response);
    if (!known) {
        if (known.error().code() == Code::kUnsupported) return GuestAgent{};
        return fail(std::move(known).error());
    }
    const auto& features = response.features();
    return GuestAgent{true,
                      std::find(features.begin(), features.end(), "exact-copy") != features.end()};
}

Result<std::string> SandboxDriver::configurationFor(const spec::Spec& spec,
                                                    const GuestAgent& agent) {
    if (agent.is_ours) return spec::writeSpec(spec);
    const Settings none;
    const Settings& settings = settings_ != nullptr ? *settings_ : none;
    return writeStrictSpec(spec, settings.connect.ignore);
}

Result<> SandboxDriver::copyFiles(const GuestFiles& files, const GuestSpec& guest,
                                  const GuestAgent& agent, Attachment& attachment) {
    const auto& ignore = settings_->connect.ignore;
    const bool may_lose =
        std::find(ignore.begin(), ignore.end(), kFileAttributesFeature) != ignore.end();
    const Unpacker unpacker = agent.copies_exactly ? Unpacker::kOurs
                              : may_lose           ? Unpacker::kProtocolLosing
                                                   : Unpacker::kProtocol;
    return copyTrees(attachment, files, guest.shares, unpacker);
}

Result<> SandboxDriver::createInGuest(const ProcessRequest& request, const GuestSpec& guest,
                                      const Ports& ports, Attachment& attachment) {
    const bool is_init = request.process_id == request.container_id;
    // First what may be refused.
    ARCA_TRY(const GuestAgent agent, askAgent());
    ARCA_TRY(std::string configuration, configurationFor(guest.spec, agent));
    const GuestFiles files = is_init ? guestFilesOf(kind_, *settings_) : GuestFiles();
    if (is_init) {
        // Ours deletes a folder without a container too. Of another's, what came before its
        // container would stay if that were not made; and it looks at nothing before the start.
        if (agent.is_ours) ARCA_CHECK(copyFiles(files, guest, agent, attachment));
        ARCA_CHECK(mountRootfs(request.container_id, files, guest.shares.front()));
    }
    context_api::CreateProcessRequest message;
    context_api::CreateProcessResponse response;
    message.set_id(request.process_id);
    message.set_containerid(request.container_id);
    if (ports.in) message.set_stdin(*ports.in);
    if (ports.out) message.set_stdout(*ports.out);
    if (ports.err) message.set_stderr(*ports.err);
    message.set_configuration(std::move(configuration));
    message.set_options(request.options);
    CallOptions options;
    options.timeout = callLimit();
    options.watches.push_back({attachment.fd(), [&] { return attachment.receiveUnasked(); }});
    watchInterrupts(options);
    auto created = client_->call(ARCA_CONTEXT_RPC("CreateProcess"), message, response, options);
    if (!created) return fail(agentError(created.error()));
    if (is_init && !agent.is_ours) ARCA_CHECK(copyFiles(files, guest, agent, attachment));
    if (is_init) ARCA_CHECK(saveConfiguration(request.container_id, guest.spec));
    return {};
}

Result<> SandboxDriver::saveConfiguration(const std::string& container_id, const spec::Spec& spec) {
    ARCA_TRY(const UniqueFd dir, containerDir(container_id));
    return base::replaceFile(dir.get(), kGuestConfigFile, spec::writeSpec(spec));
}

Result<MadeProcess> SandboxDriver::createProcess(const ProcessRequest& request) {
    const bool is_init = request.process_id == request.container_id;
    // A pod's later container finds its sandbox, or there is none.
    const bool launches = is_init && sandbox_id_ == request.container_id;
    UniqueFd socket;
    if (launches) {
        // First of all: the machine boots while everything else is got ready.
        ARCA_TRY(const MonitorConfig config, monitorConfig(request));
        ARCA_TRY(socket, folder_.connectOrLaunch(config));
    } else {
        ARCA_TRY(socket, folder_.connect());
    }
    if (is_init && !launches && hasImage()) {
        return fail(Code::kUnsupported,
                    "a disk image as root: only for the container that a machine is booted for");
    }
    Attachment attachment(std::move(socket), signals_);
    ARCA_TRY(const GuestSpec guest, guestSpec(request));

    TerminalPair terminal;
    StandIn::Options options;
    options.title = request.container_id;
    options.network_namespace = guest.network_namespace;
    options.new_network_namespace = guest.new_network_namespace;
    if (request.stdio == Stdio::kTerminal) {
        const auto& process = request.spec->process;
        ARCA_TRY(terminal, makeTerminal(process ? process->consoleSize : std::nullopt));
        options.terminal = terminal.slave.get();
    }
    const UniqueFd log = folder_.openLog();
    options.log = log.get();
    ARCA_TRY(StandIn stand_in, StandIn::start(options));
    if (is_init) ARCA_CHECK(enterCgroup(request, stand_in.identity().pid));

    const nlohmann::json hello{{"container", request.container_id},
                               {"process", request.process_id},
                               {"terminal", request.stdio == Stdio::kTerminal}};
    std::vector<int> fds{stand_in.lease().get()};
    if (request.stdio == Stdio::kTerminal) {
        fds.push_back(terminal.slave.get());
    } else {
        fds.insert(fds.end(), {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
    }
    ARCA_CHECK(attachment.send(MonitorMessage::kAttach, hello.dump(), fds));
    stand_in.lease().reset();
    terminal.slave.reset();
    if (is_init) {
        ARCA_CHECK(sendTrees(attachment, guestFilesOf(kind_, *settings_), guest.shares));
    }
    ARCA_CHECK(attachment.send(MonitorMessage::kPrepare));
    const auto boot_limit = settings_ != nullptr ? settings_->vm.boot_limit : kAnswerLimit;
    ARCA_TRY(const std::string answer,
             attachment.await(MonitorMessage::kPrepared, boot_limit + kBootSlack));
    const auto json = nlohmann::json::parse(answer, nullptr, false);
    const auto port = [&](const char* name) -> std::optional<uint32_t> {
        if (!json.is_object() || !json.contains(name)) return std::nullopt;
        return json[name].get<uint32_t>();
    };
    const Ports ports{port("stdin"), port("stdout"),
                      request.stdio == Stdio::kTerminal ? std::nullopt : port("stderr")};

    // The stand-in is where an engine's network hook has to find it.
    if (request.run_hooks) ARCA_CHECK(request.run_hooks(stand_in.identity().pid));
    ARCA_CHECK(connect());
    ARCA_CHECK(createInGuest(request, guest, ports, attachment));
    ARCA_CHECK(attachment.send(MonitorMessage::kCommit));
    ARCA_CHECK(attachment.await(MonitorMessage::kCommitted, kAnswerLimit));

    MadeProcess made;
    made.identity = stand_in.identity();
    made.terminal = std::move(terminal.master);
    stand_in.release();
    return made;
}

Result<> SandboxDriver::enterCgroup(const ProcessRequest& request, pid_t pid) {
    if (request.place_body) return request.place_body(pid);
    ARCA_TRY(const UniqueFd dir, containerDir(request.container_id));
    return enterHostCgroup(dir.get(), request.container_id, request.spec->linux.cgroupsPath, pid);
}

Result<UniqueFd> SandboxDriver::containerDir(const std::string& container_id) const {
    return base::openAt(root_fd_, container_id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

}  // namespace arca::runtime
