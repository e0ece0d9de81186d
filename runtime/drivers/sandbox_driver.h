// Sandboxes with a guest: a VM that the monitor boots (`vm`), or one that runs already (`connect`).
//
// The container's process is in another kernel; a stand-in has its pid here. ARCHITECTURE.md, "A
// container's life (guest)".
#pragma once

#include <google/protobuf/message_lite.h>

#include <optional>
#include <string>
#include <string_view>

#include "arca_extension.pb.h"
#include "runtime/drivers/agent_driver.h"
#include "runtime/drivers/attachment.h"
#include "runtime/drivers/guest_files.h"
#include "runtime/drivers/guest_spec.h"
#include "runtime/drivers/network_plan.h"
#include "runtime/drivers/sandbox_folder.h"
#include "runtime/drivers/stand_in.h"

namespace arca::runtime {

class SandboxDriver : public AgentDriver {
 public:
    explicit SandboxDriver(const SandboxChoice& choice);

    base::Result<MadeProcess> createProcess(const ProcessRequest& request) override;
    base::Result<> startProcess(const ContainerDir& dir, const Record& record,
                                const std::string& process_id) override;
    base::Result<> deleteProcess(const std::string& container_id,
                                 const std::string& process_id) override;
    base::Result<> signalInit(const ContainerDir& dir, const Record& record,
                              int signal_number) override;
    base::Result<> endByForce(const Record& record) override;
    base::Result<> signalProcess(pid_t pid, int signal_number) override;
    base::Result<Status> status(const ContainerDir& dir, const Record& record) override;
    base::Result<spec::Spec> configuration(const ContainerDir& dir) override;
    [[nodiscard]] bool sharesPids() const override { return false; }
    std::string lossReason() override;
    bool deletedByAgent(const std::string& container_id) override;
    std::string endReason(const std::string& container_id) override;
    base::Result<std::unique_ptr<ServiceWatch>> watchServices(
        const std::string& container_id) override;

 private:
    struct Ports {
        std::optional<uint32_t> in, out, err;
    };
    // What is known of the guest's agent. One without our extension decodes strictly, and ignores.
    struct GuestAgent {
        bool is_ours = false;
        bool copies_exactly = false;
    };

    // The root file system is on a disk of the machine's.
    [[nodiscard]] bool hasImage() const {
        return kind_ == "vm" && settings_ != nullptr && !settings_->vm.rootfs_image.empty();
    }
    base::Result<MonitorConfig> monitorConfig(const ProcessRequest& request) const;
    // The guest's address, as seen from here.
    [[nodiscard]] std::string address() const;
    // A new connection to the guest's agent.
    base::Result<std::unique_ptr<GrpcClient>> dialAgent();
    base::Result<> connect();
    base::Result<> call(std::string_view path, const google::protobuf::MessageLite& request,
                        google::protobuf::MessageLite& response) override;
    base::Result<GuestSpec> guestSpec(const ProcessRequest& request);
    base::Result<std::string> guestNamespace(const std::string& path);
    // The containers of this sandbox that have a stand-in.
    [[nodiscard]] base::Result<std::vector<SandboxMember>> members() const;
    // What the guest's agent, ours, says of a container.
    base::Result<arca::sandbox::v1::ContainerStateResponse> containerState(const std::string& id);
    // The path in the guest of that namespace of its init.
    base::Result<std::string> namespaceInGuest(const SandboxMember& member,
                                               const std::string& kind);
    base::Result<> planGuestNetwork(const ProcessRequest& request, GuestSpec& guest);
    base::Result<> attachNetwork(const ContainerDir& dir, const Record& record);
    base::Result<> mountRootfs(const std::string& container_id, const GuestFiles& files,
                               const SharedPath& root);
    base::Result<GuestAgent> askAgent();
    base::Result<std::string> configurationFor(const spec::Spec& spec, const GuestAgent& agent);
    base::Result<> copyFiles(const GuestFiles& files, const GuestSpec& guest,
                             const GuestAgent& agent, Attachment& attachment);
    base::Result<> createInGuest(const ProcessRequest& request, const GuestSpec& guest,
                                 const Ports& ports, Attachment& attachment);
    base::Result<> saveConfiguration(const std::string& container_id, const spec::Spec& spec);
    base::Result<> enterCgroup(const ProcessRequest& request, pid_t pid);
    [[nodiscard]] base::Result<base::UniqueFd> containerDir(const std::string& container_id) const;
    base::Result<> release(const std::string& container_id);

    std::string kind_;
    std::string sandbox_id_;
    int root_fd_;  // borrowed
    const Settings* settings_;
    SandboxFolder folder_;
};

}  // namespace arca::runtime
