// The `vm` object. Source: runtime-spec config-vm.md.
#include "spec/value_rules.h"

namespace arca::spec {

static void decode(JsonValue value, VmHypervisor& target) {
    const JsonObject object(value);
    requireText(object, "path", target.path);
    getAbsolutePath(object, "path", target.path);
    object.get("parameters", target.parameters);
}

static void decode(JsonValue value, VmKernel& target) {
    const JsonObject object(value);
    requireText(object, "path", target.path);
    getAbsolutePath(object, "path", target.path);
    object.get("parameters", target.parameters);
    getAbsolutePath(object, "initrd", target.initrd);
}

static void decode(JsonValue value, VmImage& target) {
    const JsonObject object(value);
    requireText(object, "path", target.path);
    getAbsolutePath(object, "path", target.path);
    requireOneOf(object, "format", target.format, names::kImageFormats, "is no image format");
}

static void decode(JsonValue value, VmIoMemory& target) {
    const JsonObject object(value);
    object.get("firstGFN", target.firstGFN);
    object.require("firstMFN", target.firstMFN);
    object.require("nrMFNs", target.nrMFNs);
}

static void decode(JsonValue value, VmHwConfig& target) {
    const JsonObject object(value);
    getAbsolutePath(object, "deviceTree", target.deviceTree);
    object.get("vcpus", target.vcpus);
    object.get("memory", target.memory);
    object.get("dtdevs", target.dtdevs);
    object.get("iomems", target.iomems);
    object.get("irqs", target.irqs);
}

void decode(JsonValue value, Vm& target) {
    const JsonObject object(value);
    object.get("hypervisor", target.hypervisor);
    object.get("kernel", target.kernel);
    object.get("image", target.image);
    object.get("hwConfig", target.hwConfig);
}

}  // namespace arca::spec
