// The agent: containers and their processes, and every call that is about them.
//
// Runs on the loop's thread; replies are called from there, now or later, exactly once. It knows
// nothing of gRPC. All that it holds can be found again from disk: it may be killed at any moment,
// and two agents of one state root (callers with different mount namespaces) may take turns.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/spec.h"
#include "vminitd/body.h"
#include "vminitd/cgroup.h"
#include "vminitd/create_request.h"
#include "vminitd/event_loop.h"
#include "vminitd/process.h"
#include "vminitd/process_setup.h"
#include "vminitd/record.h"
#include "vminitd/resctrl.h"
#include "vminitd/seccomp_compile.h"
#include "vminitd/statistics.h"

namespace arca::vminitd {

class GuestHooks;
class ServiceGroup;
class Supervisor;
struct ServiceEnd;

template <typename T = void>
using Reply = std::function<void(base::Result<T>)>;

// What an exec takes from its container's configuration.
struct ExecBase {
    spec::Spec spec;  // without mounts, hooks and system call lists
    SeccompProgram seccomp;
};
ExecBase makeExecBase(spec::Spec spec, SeccompProgram seccomp);

struct Container {
    std::string id;
    base::UniqueFd folder;  // where its record is
    ContainerRecord record;
    std::optional<FileStamp> stamp;  // of init.json
    std::shared_ptr<Process> init;
    std::map<std::string, std::shared_ptr<Process>> execs;  // those looked at so far
    unsigned execs_made = 0;                                // by this agent
    std::unique_ptr<ExecBase> exec_base;                    // read when first needed
    // Hooks that are still to be run by this agent, and their state.
    std::vector<spec::Hook> poststart, poststop;
    spec::State hook_state;
    bool had_create_hooks = false;           // of the stages of create, and of startContainer:
    bool had_start_hooks = false;            // when one fails the container goes
    std::shared_ptr<ServiceGroup> services;  // of its hooks, or null
    std::map<uint64_t, std::function<void(const ServiceEnd&)>> service_watchers;
    std::string end_reason;  // why the agent has ended it; empty: it has not
    // Deletions that came while it was being made.
    std::vector<std::function<void(base::Result<>)>> deletions;
    bool being_made = false;
    bool being_deleted = false;
};
using ContainerPtr = std::shared_ptr<Container>;

enum class ContainerStatus { kCreated, kRunning, kPaused, kStopped };

struct ContainerView {
    ContainerStatus status = ContainerStatus::kStopped;
    pid_t pid = 0;
    CgroupDirs cgroups;
    std::string end_reason;  // as of Container
};

class Agent {
 public:
    struct Config {
        std::string state_root;
        std::string cgroup_prefix;  // before the id where a configuration names no cgroup
        // Where below <state root>/<id>/ the record is; empty: there itself.
        std::string record_folder = kGuestFolder;
        bool dials_stdio = false;  // ports of CreateProcess lead somewhere
        // Who makes an exec does not delete it: its record goes some time after its end.
        bool commands_forget_execs = false;
        // The whole of <state root>/<id>/ goes with the container, what is mounted there is
        // unmounted before; and a container's /etc/hostname is written.
        bool owns_container_folder = false;
        // What `--rootless auto` means here, see rootless_cgroups.h.
        bool rootless = false;
        // Tells the ends of processes; null: they are somebody else's children.
        Supervisor* supervisor = nullptr;
        // Runs the hooks that configurations come with, and those of hooks.d; null: they are run by
        // whoever brings the bodies.
        const GuestHooks* hooks = nullptr;
        // Where resctrl is mounted; empty: looked up when a container asks for it.
        std::string resctrl_root = {};
    };

    // `state_root`: Config::state_root, opened. Everything else must outlive the agent.
    Agent(EventLoop& loop, CgroupManager& cgroups, CgroupFs& cgroup_fs, BodySource& bodies,
          Config config, base::UniqueFd state_root);

    // ---- SandboxContext ----
    void createProcess(CreateRequest request, Reply<> reply);
    void startProcess(const ProcessKey& key, Reply<pid_t> reply);
    // True: sent. False: it had ended before, which is no error.
    base::Result<bool> killProcess(const ProcessKey& key, int signal_number);
    base::Result<> resizeProcess(const ProcessKey& key, uint32_t rows, uint32_t columns);
    base::Result<> closeProcessStdin(const ProcessKey& key);
    void deleteProcess(const ProcessKey& key, Reply<> reply);

    // Calls `reply` at the exit, unless forgotten before. 0: it has been called already.
    using WaitToken = uint64_t;
    WaitToken waitProcess(const ProcessKey& key, Reply<ExitStatus> reply);
    void forgetWait(WaitToken token);

    // Calls `ended` with each service of the container that has ended by itself, at once with those
    // that have so far, until forgotten.
    base::Result<uint64_t> watchServices(const std::string& container_id,
                                         std::function<void(const ServiceEnd&)> ended);
    void forgetServiceWatch(const std::string& container_id, uint64_t token);

    // Of the named containers, or of all. Unknown ones are left out; kInternal when all that were
    // named are.
    base::Result<std::vector<std::pair<std::string, ContainerStatistics>>> statistics(
        std::vector<std::string> container_ids, const StatisticsSelection& wanted);

    // ---- SandboxExtension ----
    base::Result<std::vector<pid_t>> listProcesses(const std::string& container_id);
    base::Result<ContainerView> containerState(const std::string& container_id);
    void setPaused(const std::string& container_id, bool paused, Reply<> reply);
    base::Result<> update(const std::string& container_id, const std::string& resources_json);

    // Whether processes have ended whose streams are still being emptied.
    [[nodiscard]] bool exitsUnderWay() const { return exits_under_way_ > 0; }

 private:
    // ---- agent.cc: finding ----
    // Name of the record's folder below the state root.
    [[nodiscard]] std::string recordFolder(const std::string& id) const;
    // The container, from memory or from disk; nullptr when there is none. An error names the file
    // that cannot be understood.
    base::Result<ContainerPtr> lookUp(const std::string& id);
    // The same, with kNotFound.
    base::Result<ContainerPtr> find(const std::string& id);
    base::Result<ContainerPtr> load(const std::string& id);
    base::Result<std::shared_ptr<Process>> findProcess(const ContainerPtr& container,
                                                       const std::string& id);
    // Key checked, container and process found.
    struct Found {
        ContainerPtr container;
        std::shared_ptr<Process> process;
        bool is_init = false;
    };
    base::Result<Found> findByKey(const ProcessKey& key);
    base::Result<> writeRecord(Container& container);
    base::Result<> writeExecRecord(const Container& container, const Process& process);
    void recordExits(const ContainerPtr& container, const std::shared_ptr<Process>& process,
                     bool is_init);
    base::Result<ExecBase*> execBase(Container& container);
    bool isFrozen(const Container& container);
    // Keeps a process of which somebody waits to hear, while its container goes.
    void linger(const std::shared_ptr<Process>& process);

    // ---- agent_create.cc ----
    struct Creation;
    using CreationPtr = std::shared_ptr<Creation>;
    base::Result<> checkRequest(const CreateRequest& request) const;
    void createInit(CreateRequest request, Reply<> reply);
    void createExec(const ContainerPtr& container, CreateRequest request, Reply<> reply);
    base::Result<> prepareInit(Creation& creation);
    base::Result<> prepareExec(Creation& creation);
    base::Result<> makeInit(Creation& creation);
    base::Result<> makeExec(Creation& creation);
    void gotBody(const CreationPtr& creation, base::Result<Body> body);
    void finished(const CreationPtr& creation, base::Result<MadeProcess> made);
    void fail(const CreationPtr& creation, base::Error error);
    static void answerDeletions(Container& container, const base::Result<>& result);
    void supervise(Creation& creation, pid_t pid);
    void pruneExecs(Container& container, int execs_fd);

    // ---- agent_processes.cc ----
    void started(const ContainerPtr& container, const std::shared_ptr<Process>& process,
                 Reply<pid_t> reply);
    base::Result<> passSeccompListener(Container& container, const Process& process,
                                       base::UniqueFd listener);
    void deleteInit(const std::string& id, Reply<> reply);
    void deleteExec(const ContainerPtr& container, const std::string& id, Reply<> reply);
    // kMade: what create made, and nothing that the host put into the folder, such as the root's
    // mount, which serves its next try. kAll: the folder too, where it is the agent's.
    enum class Removal { kMade, kAll };
    // Empties and removes the cgroups, then the record; `reply` gets what could not be done.
    void removeContainer(const ContainerPtr& container, Removal removal, Reply<> reply);
    void unmountAndForget(const ContainerPtr& container, Removal removal, Reply<> reply);
    base::Result<> removeRecord(const Container& container, Removal removal);
    ContainerPtr salvage(const std::string& id);

    // ---- agent_hooks.cc ----
    // Completes `spec` with the hooks that are for it and finds a place for its services.
    base::Result<> collectHooks(Container& container, spec::Spec& spec);
    void prepareHooks(Container& container, const spec::Spec& spec, BodyRequest& body);
    void runPoststart(const ContainerPtr& container, Reply<pid_t> reply);
    void runPoststop(const ContainerPtr& container, Reply<> reply);
    // What follows a hook that failed after create: stop, destroy, poststop; then `reply`.
    void destroyAfterHook(const ContainerPtr& container, const base::Error& error,
                          std::function<void(base::Error)> reply);
    void stopServices(const ContainerPtr& container, Reply<> reply);
    void serviceEnded(Container& container, const ServiceEnd& end);
    void deleteUnfinished(const ContainerPtr& container, Reply<> reply);

    EventLoop& loop_;
    CgroupManager& cgroups_;
    CgroupFs& cgroup_fs_;
    BodySource& bodies_;
    Config config_;
    base::UniqueFd state_root_;
    std::map<std::string, ContainerPtr> containers_;
    std::map<WaitToken, std::pair<std::weak_ptr<Process>, uint64_t>> waits_;
    WaitToken next_wait_ = 1;
    uint64_t next_service_watch_ = 1;
    std::map<Process*, std::shared_ptr<Process>> lingering_;
    SeccompCache seccomp_;
    Resctrl resctrl_;
    int exits_under_way_ = 0;
};

}  // namespace arca::vminitd
