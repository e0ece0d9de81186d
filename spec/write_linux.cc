// The `linux` object for write.cc.
#include <algorithm>

#include "spec/encode.h"
#include "spec/json_writer.h"
#include "spec/known_names.h"

namespace arca::spec {

static void encode(JsonWriter& out, const Namespace& ns) {
    const auto known =
        std::find_if(names::kNamespaces.begin(), names::kNamespaces.end(),
                     [&](const names::NamespaceName& entry) { return entry.type == ns.type; });
    out.beginObject();
    out.name("type");
    out.string(known->name);
    putSet(out, "path", ns.path);
    out.endObject();
}

static void encode(JsonWriter& out, const Device& device) {
    out.beginObject();
    out.name("type");
    out.string({&device.type, 1});
    put(out, "path", device.path);
    if (device.type != 'p' || device.major != 0) put(out, "major", device.major);
    if (device.type != 'p' || device.minor != 0) put(out, "minor", device.minor);
    putSet(out, "fileMode", device.fileMode);
    putSet(out, "uid", device.uid);
    putSet(out, "gid", device.gid);
    out.endObject();
}

static void encode(JsonWriter& out, const NetDevice& device) {
    out.beginObject();
    putSet(out, "name", device.name);
    out.endObject();
}

static void encode(JsonWriter& out, const TimeOffset& offset) {
    out.beginObject();
    putSet(out, "secs", offset.secs);
    putSet(out, "nanosecs", offset.nanosecs);
    out.endObject();
}

static void encode(JsonWriter& out, const DeviceRule& rule) {
    out.beginObject();
    put(out, "allow", rule.allow);
    if (rule.type != 'a') {
        out.name("type");
        out.string({&rule.type, 1});
    }
    putSet(out, "major", rule.major);
    putSet(out, "minor", rule.minor);
    putSet(out, "access", rule.access);
    out.endObject();
}

static void encode(JsonWriter& out, const MemoryResources& memory) {
    out.beginObject();
    putSet(out, "limit", memory.limit);
    putSet(out, "reservation", memory.reservation);
    putSet(out, "swap", memory.swap);
    putSet(out, "kernel", memory.kernel);
    putSet(out, "kernelTCP", memory.kernelTCP);
    putSet(out, "swappiness", memory.swappiness);
    putSet(out, "disableOOMKiller", memory.disableOOMKiller);
    putSet(out, "useHierarchy", memory.useHierarchy);
    putSet(out, "checkBeforeUpdate", memory.checkBeforeUpdate);
    out.endObject();
}

static void encode(JsonWriter& out, const CpuResources& cpu) {
    out.beginObject();
    putSet(out, "shares", cpu.shares);
    putSet(out, "quota", cpu.quota);
    putSet(out, "burst", cpu.burst);
    putSet(out, "period", cpu.period);
    putSet(out, "realtimeRuntime", cpu.realtimeRuntime);
    putSet(out, "realtimePeriod", cpu.realtimePeriod);
    putSet(out, "cpus", cpu.cpus);
    putSet(out, "mems", cpu.mems);
    putSet(out, "idle", cpu.idle);
    out.endObject();
}

static void encode(JsonWriter& out, const WeightDevice& device) {
    out.beginObject();
    put(out, "major", device.major);
    put(out, "minor", device.minor);
    putSet(out, "weight", device.weight);
    putSet(out, "leafWeight", device.leafWeight);
    out.endObject();
}

static void encode(JsonWriter& out, const ThrottleDevice& device) {
    out.beginObject();
    put(out, "major", device.major);
    put(out, "minor", device.minor);
    put(out, "rate", device.rate);
    out.endObject();
}

static void encode(JsonWriter& out, const BlockIoResources& block) {
    out.beginObject();
    putSet(out, "weight", block.weight);
    putSet(out, "leafWeight", block.leafWeight);
    putSet(out, "weightDevice", block.weightDevice);
    putSet(out, "throttleReadBpsDevice", block.throttleReadBpsDevice);
    putSet(out, "throttleWriteBpsDevice", block.throttleWriteBpsDevice);
    putSet(out, "throttleReadIOPSDevice", block.throttleReadIOPSDevice);
    putSet(out, "throttleWriteIOPSDevice", block.throttleWriteIOPSDevice);
    out.endObject();
}

static void encode(JsonWriter& out, const HugepageLimit& limit) {
    out.beginObject();
    put(out, "pageSize", limit.pageSize);
    put(out, "limit", limit.limit);
    out.endObject();
}

static void encode(JsonWriter& out, const InterfacePriority& priority) {
    out.beginObject();
    put(out, "name", priority.name);
    put(out, "priority", priority.priority);
    out.endObject();
}

static void encode(JsonWriter& out, const NetworkResources& network) {
    out.beginObject();
    putSet(out, "classID", network.classID);
    putSet(out, "priorities", network.priorities);
    out.endObject();
}

static void encode(JsonWriter& out, const RdmaLimit& limit) {
    out.beginObject();
    putSet(out, "hcaHandles", limit.hcaHandles);
    putSet(out, "hcaObjects", limit.hcaObjects);
    out.endObject();
}

void encode(JsonWriter& out, const Resources& resources) {
    out.beginObject();
    putSet(out, "devices", resources.devices);
    putSet(out, "memory", resources.memory);
    putSet(out, "cpu", resources.cpu);
    if (resources.pidsLimit) {
        out.name("pids");
        out.beginObject();
        put(out, "limit", *resources.pidsLimit);
        out.endObject();
    }
    putSet(out, "blockIO", resources.blockIO);
    putSet(out, "hugepageLimits", resources.hugepageLimits);
    putSet(out, "network", resources.network);
    putSet(out, "rdma", resources.rdma);
    putSet(out, "unified", resources.unified);
    out.endObject();
}

static void encode(JsonWriter& out, const SeccompArg& arg) {
    out.beginObject();
    put(out, "index", arg.index);
    put(out, "value", arg.value);
    putSet(out, "valueTwo", arg.valueTwo);
    put(out, "op", arg.op);
    out.endObject();
}

static void encode(JsonWriter& out, const SeccompSyscall& rule) {
    out.beginObject();
    put(out, "names", rule.names);
    put(out, "action", rule.action);
    putSet(out, "errnoRet", rule.errnoRet);
    putSet(out, "args", rule.args);
    out.endObject();
}

static void encode(JsonWriter& out, const Seccomp& seccomp) {
    out.beginObject();
    put(out, "defaultAction", seccomp.defaultAction);
    putSet(out, "defaultErrnoRet", seccomp.defaultErrnoRet);
    putSet(out, "architectures", seccomp.architectures);
    putSet(out, "flags", seccomp.flags);
    putSet(out, "listenerPath", seccomp.listenerPath);
    putSet(out, "listenerMetadata", seccomp.listenerMetadata);
    putSet(out, "syscalls", seccomp.syscalls);
    out.endObject();
}

static void encode(JsonWriter& out, const Personality& personality) {
    out.beginObject();
    put(out, "domain", personality.domain);
    putSet(out, "flags", personality.flags);
    out.endObject();
}

static void encode(JsonWriter& out, const IntelRdt& rdt) {
    out.beginObject();
    putSet(out, "closID", rdt.closID);
    putSet(out, "l3CacheSchema", rdt.l3CacheSchema);
    putSet(out, "memBwSchema", rdt.memBwSchema);
    putSet(out, "schemata", rdt.schemata);
    putSet(out, "enableCMT", rdt.enableCMT);
    putSet(out, "enableMBM", rdt.enableMBM);
    putSet(out, "enableMonitoring", rdt.enableMonitoring);
    out.endObject();
}

static void encode(JsonWriter& out, const MemoryPolicy& policy) {
    out.beginObject();
    put(out, "mode", policy.mode);
    putSet(out, "nodes", policy.nodes);
    putSet(out, "flags", policy.flags);
    out.endObject();
}

void encode(JsonWriter& out, const Linux& spec) {
    out.beginObject();
    putSet(out, "uidMappings", spec.uidMappings);
    putSet(out, "gidMappings", spec.gidMappings);
    putSet(out, "sysctl", spec.sysctl);
    putSet(out, "resources", spec.resources);
    putSet(out, "cgroupsPath", spec.cgroupsPath);
    putSet(out, "namespaces", spec.namespaces);
    putSet(out, "devices", spec.devices);
    putSet(out, "netDevices", spec.netDevices);
    putSet(out, "seccomp", spec.seccomp);
    putSet(out, "rootfsPropagation", spec.rootfsPropagation);
    putSet(out, "maskedPaths", spec.maskedPaths);
    putSet(out, "readonlyPaths", spec.readonlyPaths);
    putSet(out, "mountLabel", spec.mountLabel);
    putSet(out, "intelRdt", spec.intelRdt);
    putSet(out, "personality", spec.personality);
    putSet(out, "timeOffsets", spec.timeOffsets);
    putSet(out, "memoryPolicy", spec.memoryPolicy);
    out.endObject();
}

}  // namespace arca::spec
