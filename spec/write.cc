#include "spec/write.h"

#include "spec/encode.h"
#include "spec/json_writer.h"
#include "spec/known_names.h"

namespace arca::spec {

static void encode(JsonWriter& out, const ConsoleSize& size) {
    out.beginObject();
    put(out, "height", size.height);
    put(out, "width", size.width);
    out.endObject();
}

static void encode(JsonWriter& out, const User& user) {
    out.beginObject();
    put(out, "uid", user.uid);
    put(out, "gid", user.gid);
    putSet(out, "umask", user.umask);
    putSet(out, "additionalGids", user.additionalGids);
    putSet(out, "username", user.username);
    out.endObject();
}

static void encode(JsonWriter& out, const Capabilities& sets) {
    out.beginObject();
    putSet(out, "bounding", sets.bounding);
    putSet(out, "effective", sets.effective);
    putSet(out, "inheritable", sets.inheritable);
    putSet(out, "permitted", sets.permitted);
    putSet(out, "ambient", sets.ambient);
    out.endObject();
}

static void encode(JsonWriter& out, const Rlimit& limit) {
    out.beginObject();
    put(out, "type", limit.type);
    put(out, "hard", limit.hard);
    put(out, "soft", limit.soft);
    out.endObject();
}

static void encode(JsonWriter& out, const Scheduler& scheduler) {
    out.beginObject();
    put(out, "policy", scheduler.policy);
    putSet(out, "nice", scheduler.nice);
    putSet(out, "priority", scheduler.priority);
    putSet(out, "flags", scheduler.flags);
    putSet(out, "runtime", scheduler.runtime);
    putSet(out, "deadline", scheduler.deadline);
    putSet(out, "period", scheduler.period);
    out.endObject();
}

static void encode(JsonWriter& out, const IoPriority& priority) {
    out.beginObject();
    put(out, "class", priority.class_name);
    put(out, "priority", priority.priority);
    out.endObject();
}

static void encode(JsonWriter& out, const ExecCpuAffinity& affinity) {
    out.beginObject();
    putSet(out, "initial", affinity.initial);
    putSet(out, "final", affinity.final_list);
    out.endObject();
}

void encode(JsonWriter& out, const Process& process) {
    out.beginObject();
    putSet(out, "terminal", process.terminal);
    putSet(out, "consoleSize", process.consoleSize);
    put(out, "user", process.user);
    put(out, "args", process.args);
    putSet(out, "env", process.env);
    put(out, "cwd", process.cwd);
    putSet(out, "capabilities", process.capabilities);
    putSet(out, "rlimits", process.rlimits);
    putSet(out, "noNewPrivileges", process.noNewPrivileges);
    putSet(out, "apparmorProfile", process.apparmorProfile);
    putSet(out, "selinuxLabel", process.selinuxLabel);
    putSet(out, "oomScoreAdj", process.oomScoreAdj);
    putSet(out, "scheduler", process.scheduler);
    putSet(out, "ioPriority", process.ioPriority);
    putSet(out, "execCPUAffinity", process.execCPUAffinity);
    out.endObject();
}

static void encode(JsonWriter& out, const Root& root) {
    out.beginObject();
    put(out, "path", root.path);
    putSet(out, "readonly", root.readonly);
    out.endObject();
}

void encode(JsonWriter& out, const IdMapping& mapping) {
    out.beginObject();
    put(out, "containerID", mapping.containerID);
    put(out, "hostID", mapping.hostID);
    put(out, "size", mapping.size);
    out.endObject();
}

static void encode(JsonWriter& out, const Mount& mount) {
    out.beginObject();
    put(out, "destination", mount.destination);
    putSet(out, "type", mount.type);
    putSet(out, "source", mount.source);
    putSet(out, "options", mount.options);
    putSet(out, "uidMappings", mount.uidMappings);
    putSet(out, "gidMappings", mount.gidMappings);
    out.endObject();
}

static void encodeReady(JsonWriter& out, const HookService& service) {
    if (service.ready == HookService::Ready::kExecuted) return;
    out.name("ready");
    out.beginObject();
    if (service.ready == HookService::Ready::kFd) put(out, "fd", true);
    putSet(out, "port", service.port);
    putSet(out, "socket", service.socket);
    out.endObject();
}

static void encode(JsonWriter& out, const HookService& service) {
    out.beginObject();
    put(out, "name", service.name);
    encodeReady(out, service);
    if (service.network_namespace) put(out, "namespaces", std::vector<std::string>{"network"});
    if (service.on_exit == HookService::OnExit::kKill) put(out, "onExit", std::string("kill"));
    put(out, "stopSignal", std::to_string(service.stop_signal));
    put(out, "stopTimeout", service.stop_timeout);
    out.endObject();
}

static void encode(JsonWriter& out, const Hook& hook) {
    out.beginObject();
    put(out, "path", hook.path);
    putSet(out, "args", hook.args);
    putSet(out, "env", hook.env);
    putSet(out, "timeout", hook.timeout);
    putSet(out, "service", hook.service);
    putSet(out, "file", hook.file);
    out.endObject();
}

static void encode(JsonWriter& out, const Hooks& hooks) {
    out.beginObject();
    putSet(out, "prestart", hooks.prestart);
    putSet(out, "createRuntime", hooks.createRuntime);
    putSet(out, "createContainer", hooks.createContainer);
    putSet(out, "startContainer", hooks.startContainer);
    putSet(out, "poststart", hooks.poststart);
    putSet(out, "poststop", hooks.poststop);
    out.endObject();
}

static bool isEmpty(const Hooks& hooks) {
    return hooks.prestart.empty() && hooks.createRuntime.empty() && hooks.createContainer.empty() &&
           hooks.startContainer.empty() && hooks.poststart.empty() && hooks.poststop.empty();
}

static void encode(JsonWriter& out, const VmHypervisor& hypervisor) {
    out.beginObject();
    put(out, "path", hypervisor.path);
    putSet(out, "parameters", hypervisor.parameters);
    out.endObject();
}

static void encode(JsonWriter& out, const VmKernel& kernel) {
    out.beginObject();
    put(out, "path", kernel.path);
    putSet(out, "parameters", kernel.parameters);
    putSet(out, "initrd", kernel.initrd);
    out.endObject();
}

static void encode(JsonWriter& out, const VmImage& image) {
    out.beginObject();
    put(out, "path", image.path);
    put(out, "format", image.format);
    out.endObject();
}

static void encode(JsonWriter& out, const VmIoMemory& memory) {
    out.beginObject();
    putSet(out, "firstGFN", memory.firstGFN);
    put(out, "firstMFN", memory.firstMFN);
    put(out, "nrMFNs", memory.nrMFNs);
    out.endObject();
}

static void encode(JsonWriter& out, const VmHwConfig& config) {
    out.beginObject();
    putSet(out, "deviceTree", config.deviceTree);
    putSet(out, "vcpus", config.vcpus);
    putSet(out, "memory", config.memory);
    putSet(out, "dtdevs", config.dtdevs);
    putSet(out, "iomems", config.iomems);
    putSet(out, "irqs", config.irqs);
    out.endObject();
}

static void encode(JsonWriter& out, const Vm& vm) {
    out.beginObject();
    putSet(out, "hypervisor", vm.hypervisor);
    putSet(out, "kernel", vm.kernel);
    putSet(out, "image", vm.image);
    putSet(out, "hwConfig", vm.hwConfig);
    out.endObject();
}

void encode(JsonWriter& out, const Spec& spec) {
    out.beginObject();
    put(out, "ociVersion", spec.ociVersion);
    putSet(out, "process", spec.process);
    putSet(out, "root", spec.root);
    putSet(out, "hostname", spec.hostname);
    putSet(out, "domainname", spec.domainname);
    putSet(out, "mounts", spec.mounts);
    if (!isEmpty(spec.hooks)) put(out, "hooks", spec.hooks);
    putSet(out, "annotations", spec.annotations);
    if (spec.has_linux) put(out, "linux", spec.linux);
    putSet(out, "vm", spec.vm);
    out.endObject();
}

std::string writeSpec(const Spec& spec) {
    JsonWriter out;
    // A configuration of an engine has 10 to 40 KiB.
    out.reserve(size_t{24} << 10U);
    encode(out, spec);
    return out.take();
}

std::string writeProcess(const Process& process) {
    JsonWriter out;
    encode(out, process);
    return out.take();
}

}  // namespace arca::spec
