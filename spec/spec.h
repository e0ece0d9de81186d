// config.json as plain structs: every property of runtime-spec 1.2 and 1.3's additions for Linux.
//
// parse.h makes these from JSON and checks every limit; nothing behind it sees JSON again. Values
// have the exact type that the specification names; what may be absent is std::optional, except
// where absent and default mean the same. Names are the specification's. Source: runtime-spec
// config.md, config-linux.md, config-vm.md.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace arca::spec {

using Annotations = std::map<std::string, std::string>;

struct ConsoleSize {
    uint32_t height = 0;  // rows
    uint32_t width = 0;   // columns
};

struct User {
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::optional<uint32_t> umask;  // absent: 0022
    std::vector<uint32_t> additionalGids;
    // Not in the specification for Linux; the guest protocol's clients send "name", "uid:gid" or
    // "user:group" here, to be resolved against the container's own files. Empty: uid and gid as
    // they are.
    std::string username;
};

// Capability names as given ("CAP_KILL"); unknown ones stay and are warned about where they are
// applied.
struct Capabilities {
    std::vector<std::string> bounding;
    std::vector<std::string> effective;
    std::vector<std::string> inheritable;
    std::vector<std::string> permitted;
    std::vector<std::string> ambient;
};

struct Rlimit {
    int resource = 0;  // RLIMIT_* number of <sys/resource.h>
    std::string type;  // "RLIMIT_NOFILE"
    uint64_t soft = 0;
    uint64_t hard = 0;
};

struct Scheduler {
    std::string policy;  // SCHED_OTHER, _FIFO, _RR, _BATCH, _ISO, _IDLE, _DEADLINE
    int32_t nice = 0;
    int32_t priority = 0;
    std::vector<std::string> flags;                  // SCHED_FLAG_*
    uint64_t runtime = 0, deadline = 0, period = 0;  // ns
};

struct IoPriority {
    std::string class_name;  // IOPRIO_CLASS_RT, _BE, _IDLE
    int32_t priority = 0;    // 0..7
};

struct ExecCpuAffinity {
    std::string initial;
    std::string final_list;  // "final"
};

struct Process {
    bool terminal = false;
    std::optional<ConsoleSize> consoleSize;
    User user;
    std::vector<std::string> args;
    std::vector<std::string> env;
    std::string cwd;
    std::optional<Capabilities>
        capabilities;  // absent: the inherited sets stay (documented choice)
    std::vector<Rlimit> rlimits;
    bool noNewPrivileges = false;
    std::string apparmorProfile;
    std::string selinuxLabel;
    std::optional<int32_t> oomScoreAdj;  // -1000..1000
    std::optional<Scheduler> scheduler;
    std::optional<IoPriority> ioPriority;
    std::optional<ExecCpuAffinity> execCPUAffinity;
};

struct Root {
    std::string path;
    bool readonly = false;
};

struct IdMapping {
    uint32_t containerID = 0;
    uint32_t hostID = 0;
    uint32_t size = 0;
};

struct Mount {
    std::string destination;
    std::string type;
    std::string source;
    std::vector<std::string> options;
    std::vector<IdMapping> uidMappings;
    std::vector<IdMapping> gidMappings;

    // By its type, or an option bind or rbind.
    [[nodiscard]] bool isBind() const;
};

// Not in the specification: a hook that keeps running beside the container, run by the agent. What
// is started is the hook's own path, args and env; its timeout is the limit until it is ready.
struct HookService {
    // What says that it is ready; nothing: having been executed.
    enum class Ready { kExecuted, kFd, kPort, kSocket };
    enum class OnExit { kIgnore, kKill };

    std::string name;  // as an id; unique among the container's services
    Ready ready = Ready::kExecuted;
    uint32_t port = 0;                 // of kPort
    std::string socket;                // of kSocket: absolute
    bool network_namespace = false;    // in the container's, not the agent's
    OnExit on_exit = OnExit::kIgnore;  // what its end means for the container
    int stop_signal = 15;              // SIGTERM
    int32_t stop_timeout = 5;          // seconds until SIGKILL; 0: at once
};

struct Hook {
    std::string path;  // absolute
    std::vector<std::string> args;
    std::optional<std::vector<std::string>> env;  // absent: the runner's own environment
    std::optional<int32_t> timeout;               // seconds, > 0
    std::optional<HookService> service;           // of prestart and createRuntime only
    std::string file;  // of which hooks.d file it is; empty: the configuration's own
};

struct Hooks {
    std::vector<Hook> prestart, createRuntime, createContainer, startContainer, poststart, poststop;

    // All stages, in the order of a container's life.
    static constexpr std::array kStages{"prestart",       "createRuntime", "createContainer",
                                        "startContainer", "poststart",     "poststop"};
    // The list of a stage by its name, or nullptr.
    [[nodiscard]] std::vector<Hook>* find(std::string_view stage);
    [[nodiscard]] const std::vector<Hook>* find(std::string_view stage) const {
        return const_cast<Hooks*>(this)->find(stage);
    }
};

enum class NamespaceType { kPid, kNetwork, kMount, kIpc, kUts, kUser, kCgroup, kTime };

struct Namespace {
    NamespaceType type = NamespaceType::kPid;
    std::string path;  // empty: a new one
};

struct Device {
    char type = 'c';  // c, b, u (as c), p
    std::string path;
    int64_t major = 0;
    int64_t minor = 0;
    std::optional<uint32_t> fileMode;  // permission bits; absent: 0666
    uint32_t uid = 0;
    uint32_t gid = 0;
};

struct DeviceRule {
    bool allow = false;
    char type = 'a';               // a, b, c
    std::optional<int64_t> major;  // absent: all
    std::optional<int64_t> minor;
    std::string access;  // of r, w, m; empty: rwm
};

struct MemoryResources {
    // Bytes; -1 is unlimited. Absent: untouched.
    std::optional<int64_t> limit, reservation, swap, kernel, kernelTCP;
    std::optional<uint64_t> swappiness;  // 0..100
    std::optional<bool> disableOOMKiller, useHierarchy, checkBeforeUpdate;
};

struct CpuResources {
    std::optional<uint64_t> shares;
    std::optional<int64_t> quota;    // us
    std::optional<uint64_t> burst;   // us
    std::optional<uint64_t> period;  // us
    std::optional<int64_t> realtimeRuntime;
    std::optional<uint64_t> realtimePeriod;
    std::string cpus, mems;
    std::optional<int64_t> idle;
};

struct WeightDevice {
    int64_t major = 0, minor = 0;
    std::optional<uint16_t> weight, leafWeight;
};

struct ThrottleDevice {
    int64_t major = 0, minor = 0;
    uint64_t rate = 0;  // bytes or operations per second
};

struct BlockIoResources {
    std::optional<uint16_t> weight, leafWeight;
    std::vector<WeightDevice> weightDevice;
    std::vector<ThrottleDevice> throttleReadBpsDevice, throttleWriteBpsDevice,
        throttleReadIOPSDevice, throttleWriteIOPSDevice;
};

struct HugepageLimit {
    std::string pageSize;  // "2MB"
    uint64_t limit = 0;    // bytes
};

struct InterfacePriority {
    std::string name;
    uint32_t priority = 0;
};

struct NetworkResources {
    std::optional<uint32_t> classID;
    std::vector<InterfacePriority> priorities;
};

struct RdmaLimit {
    std::optional<uint32_t> hcaHandles, hcaObjects;
};

struct Resources {
    std::vector<DeviceRule> devices;
    std::optional<MemoryResources> memory;
    std::optional<CpuResources> cpu;
    std::optional<int64_t> pidsLimit;  // -1 unlimited
    std::optional<BlockIoResources> blockIO;
    std::vector<HugepageLimit> hugepageLimits;
    std::optional<NetworkResources> network;
    std::map<std::string, RdmaLimit> rdma;
    std::map<std::string, std::string> unified;  // cgroup v2 file -> value

    // The name of a member that asks for a limit, or nullptr. Device rules are none.
    [[nodiscard]] const char* aLimit() const;
};

struct SeccompArg {
    uint32_t index = 0;  // 0..5
    uint64_t value = 0;
    uint64_t valueTwo = 0;
    std::string op;  // SCMP_CMP_*
};

struct SeccompSyscall {
    std::vector<std::string> names;
    std::string action;  // SCMP_ACT_*
    std::optional<uint32_t> errnoRet;
    std::vector<SeccompArg> args;
};

struct Seccomp {
    std::string defaultAction;
    std::optional<uint32_t> defaultErrnoRet;
    std::vector<std::string> architectures;
    std::optional<std::vector<std::string>> flags;  // absent differs from []
    std::string listenerPath;
    std::string listenerMetadata;
    std::vector<SeccompSyscall> syscalls;

    // Whether a rule asks for SCMP_ACT_NOTIFY, so that the filter has a listener.
    [[nodiscard]] bool notifies() const;
};

struct TimeOffset {
    int64_t secs = 0;
    uint32_t nanosecs = 0;
};

struct Personality {
    std::string domain;  // LINUX, LINUX32
    std::vector<std::string> flags;
};

struct IntelRdt {
    std::optional<std::string> closID;
    std::optional<std::string> l3CacheSchema, memBwSchema;
    std::vector<std::string> schemata;
    bool enableCMT = false, enableMBM = false, enableMonitoring = false;
};

struct MemoryPolicy {
    std::string mode;   // MPOL_*
    std::string nodes;  // list form, "0-3,7"
    std::vector<std::string> flags;
};

struct NetDevice {
    std::string name;  // inside the container; empty: as on the host
};

struct Linux {
    std::vector<IdMapping> uidMappings, gidMappings;
    std::map<std::string, std::string> sysctl;
    std::optional<Resources> resources;
    std::string cgroupsPath;
    std::vector<Namespace> namespaces;
    std::vector<Device> devices;
    std::map<std::string, NetDevice> netDevices;
    std::optional<Seccomp> seccomp;
    std::string rootfsPropagation;  // shared, slave, private, unbindable, r-forms, or empty
    std::vector<std::string> maskedPaths, readonlyPaths;
    std::string mountLabel;
    std::optional<IntelRdt> intelRdt;
    std::optional<Personality> personality;
    std::map<std::string, TimeOffset> timeOffsets;  // "monotonic", "boottime"
    std::optional<MemoryPolicy> memoryPolicy;

    // The entry of `type`, or nullptr.
    [[nodiscard]] const Namespace* findNamespace(NamespaceType type) const {
        for (const Namespace& ns : namespaces) {
            if (ns.type == type) return &ns;
        }
        return nullptr;
    }
};

struct VmHypervisor {
    std::string path;
    std::vector<std::string> parameters;
};

struct VmKernel {
    std::string path;
    std::vector<std::string> parameters;
    std::string initrd;
};

struct VmImage {
    std::string path;
    std::string format;  // raw, qcow2, vdi, vmdk, vhd
};

struct VmIoMemory {
    std::optional<uint64_t> firstGFN;
    uint64_t firstMFN = 0;
    uint64_t nrMFNs = 0;
};

struct VmHwConfig {
    std::string deviceTree;
    std::optional<uint32_t> vcpus;
    std::optional<uint64_t> memory;  // bytes
    std::vector<std::string> dtdevs;
    std::vector<VmIoMemory> iomems;
    std::vector<uint32_t> irqs;
};

// Paths are absolute and the runtime's, not the container's.
struct Vm {
    std::optional<VmHypervisor> hypervisor;
    std::optional<VmKernel> kernel;
    std::optional<VmImage> image;
    std::optional<VmHwConfig> hwConfig;
};

struct Spec {
    std::string ociVersion;
    std::optional<Root> root;
    std::optional<Process> process;
    std::string hostname;
    std::string domainname;
    std::vector<Mount> mounts;
    Hooks hooks;
    Annotations annotations;
    Linux linux;
    bool has_linux = false;  // the object itself was there
    std::optional<Vm> vm;

    [[nodiscard]] bool newNamespace(NamespaceType type) const {
        const Namespace* ns = linux.findNamespace(type);
        return ns != nullptr && ns->path.empty();
    }
};

}  // namespace arca::spec
