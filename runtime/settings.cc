#include "runtime/settings.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/strings.h"
#include "runtime/context.h"
#include "runtime/drivers/strict_spec.h"
#include "runtime/hook_places.h"

namespace arca::runtime {
namespace {

using Json = nlohmann::json;
using base::Code;
using base::fail;
using base::Result;

constexpr char kDefaultFile[] = "/etc/arca-runtime/config.json";
constexpr uint32_t kLeastMemoryMib = 128;
constexpr uint32_t kMostMemoryMib = 1U << 20U;
constexpr uint32_t kMostVcpus = 255;
constexpr uint32_t kMostCopyMib = 1U << 20U;
constexpr int64_t kMostBootSeconds = 3600;

auto wrong(const std::string& member, const char* what) {
    return fail(Code::kInvalidArgument, member + ": " + what);
}

Result<> readText(const Json& value, const std::string& member, std::string& out) {
    if (!value.is_string()) return wrong(member, "not a string");
    out = value.get<std::string>();
    if (out.find('\0') != std::string::npos) return wrong(member, "has a NUL byte in it");
    return {};
}

Result<> readPath(const Json& value, const std::string& member, std::string& out) {
    ARCA_CHECK(readText(value, member, out));
    if (out.empty() || out.front() != '/') return wrong(member, "not an absolute path");
    return {};
}

Result<> checkRange(uint32_t number, const std::string& member, uint32_t least, uint32_t most) {
    if (number >= least && number <= most) return {};
    return fail(Code::kInvalidArgument,
                member + ": not between " + std::to_string(least) + " and " + std::to_string(most));
}

Result<> readNumber(const Json& value, const std::string& member, uint32_t least, uint32_t most,
                    std::optional<uint32_t>& out) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > most) {
        return wrong(member, "not a number in range");
    }
    out = value.get<uint32_t>();
    return checkRange(*out, member, least, most);
}

Result<> checkAccel(const std::string& accel, const std::string& member) {
    if (accel == "auto" || accel == "tcg" || accel == "kvm") return {};
    return wrong(member, "not auto, tcg or kvm");
}

Result<> checkVsock(const std::string& vsock, const std::string& member) {
    if (vsock == "auto" || vsock == "kernel" || vsock == "user") return {};
    return wrong(member, "not auto, kernel or user");
}

Result<> readCopyLimit(const Json& value, const std::string& member, uint32_t& out) {
    std::optional<uint32_t> number;
    ARCA_CHECK(readNumber(value, member, 1, kMostCopyMib, number));
    out = *number;
    return {};
}

Result<> readStages(const Json& value, const std::string& member, std::vector<std::string>& out) {
    if (!value.is_array()) return wrong(member, "not an array");
    for (const Json& entry : value) {
        ARCA_CHECK(readText(entry, member, out.emplace_back()));
        auto known = checkStage(out.back());
        if (!known) return fail(std::move(known).error().withContext(member));
    }
    return {};
}

Result<> readVmMember(const std::string& key, const Json& value, VmSettings& vm) {
    const std::string member = "vm." + key;
    if (key == "kernel") return readPath(value, member, vm.kernel);
    if (key == "initrd") return readPath(value, member, vm.initrd);
    if (key == "qemu") return readPath(value, member, vm.qemu);
    if (key == "virtiofsd") return readPath(value, member, vm.virtiofsd);
    if (key == "append") return readText(value, member, vm.append);
    if (key == "guest_hooks") return readStages(value, member, vm.guest_hooks);
    if (key == "memory_mib") {
        return readNumber(value, member, kLeastMemoryMib, kMostMemoryMib, vm.memory_mib);
    }
    if (key == "vcpus") return readNumber(value, member, 1, kMostVcpus, vm.vcpus);
    if (key == "accel") {
        ARCA_CHECK(readText(value, member, vm.accel));
        return checkAccel(vm.accel, member);
    }
    if (key == "vsock") {
        ARCA_CHECK(readText(value, member, vm.vsock));
        return checkVsock(vm.vsock, member);
    }
    if (key == "network") {
        ARCA_CHECK(readText(value, member, vm.network));
        if (vm.network == "auto" || vm.network == "forwarder" || vm.network == "none") return {};
        return wrong(member, "not auto, forwarder or none");
    }
    if (key == "labels") {
        ARCA_CHECK(readText(value, member, vm.labels));
        if (vm.labels == "ignore" || vm.labels == "apply") return {};
        return wrong(member, "not ignore or apply");
    }
    if (key == "rootfs") {
        ARCA_CHECK(readText(value, member, vm.rootfs));
        if (vm.rootfs == "share" || vm.rootfs == "copy") return {};
        return wrong(member, "not share or copy");
    }
    if (key == "copy_mib") return readCopyLimit(value, member, vm.copy_mib);
    if (key == "boot_seconds") {
        std::optional<uint32_t> seconds;
        ARCA_CHECK(readNumber(value, member, 1, kMostBootSeconds, seconds));
        vm.boot_limit = std::chrono::seconds(*seconds);
        return {};
    }
    return wrong(member, "no such member");
}

Result<> readPaths(const Json& value, const std::string& member, ConnectSettings& connect) {
    if (!value.is_object()) return wrong(member, "not an object");
    for (const auto& [host, guest] : value.items()) {
        std::string host_path;
        std::string guest_path;
        ARCA_CHECK(readPath(Json(host), member, host_path));
        ARCA_CHECK(readPath(guest, member, guest_path));
        connect.paths[base::cleanPath(host_path)] = base::cleanPath(guest_path);
    }
    return {};
}

Result<> readTexts(const Json& value, const std::string& member, std::vector<std::string>& out) {
    if (!value.is_array()) return wrong(member, "not an array");
    for (const Json& entry : value) ARCA_CHECK(readText(entry, member, out.emplace_back()));
    return {};
}

Result<> readIgnore(const Json& value, const std::string& member, ConnectSettings& connect) {
    ARCA_CHECK(readTexts(value, member, connect.ignore));
    for (const std::string& feature : connect.ignore) {
        if (!isIgnorableFeature(feature)) {
            return wrong(member + ": " + base::printable(feature), "no such feature");
        }
    }
    return {};
}

Result<> readDevice(const Json& value, const std::string& member, GuestDevice& device) {
    for (const auto& [key, inner] : value.items()) {
        const std::string name = member + "." + key;
        if (key == "device") {
            ARCA_CHECK(readPath(inner, name, device.path));
        } else if (key == "type") {
            ARCA_CHECK(readText(inner, name, device.type));
        } else if (key == "options") {
            ARCA_CHECK(readTexts(inner, name, device.options));
        } else {
            return wrong(name, "no such member");
        }
    }
    if (device.path.empty()) return wrong(member + ".device", "not there");
    return {};
}

Result<> readSource(const Json& value, const std::string& member, std::string& out) {
    ARCA_CHECK(readText(value, member, out));
    if (out == "paths" || out == "copy") return {};
    return wrong(member, "not paths or copy");
}

Result<> readConnect(const Json& value, ConnectSettings& connect) {
    if (!value.is_object()) return wrong("connect", "not an object");
    for (const auto& [key, inner] : value.items()) {
        const std::string member = "connect." + key;
        if (key == "paths") {
            ARCA_CHECK(readPaths(inner, member, connect));
        } else if (key == "ignore") {
            ARCA_CHECK(readIgnore(inner, member, connect));
        } else if (key == "rootfs" && inner.is_object()) {
            ARCA_CHECK(readDevice(inner, member, connect.device));
        } else if (key == "rootfs") {
            ARCA_CHECK(readSource(inner, member, connect.rootfs));
        } else if (key == "binds") {
            ARCA_CHECK(readSource(inner, member, connect.binds));
        } else if (key == "copy_mib") {
            ARCA_CHECK(readCopyLimit(inner, member, connect.copy_mib));
        } else if (key == "network") {
            ARCA_CHECK(readText(inner, member, connect.network));
            if (connect.network != "none" && connect.network != "forwarder") {
                return wrong(member, "not none or forwarder");
            }
        } else {
            return wrong(member, "no such member");
        }
    }
    return {};
}

Result<> readMember(const std::string& key, const Json& value, Settings& settings) {
    if (key == "sandbox") return readText(value, key, settings.sandbox);
    if (key == "vm") {
        if (!value.is_object()) return wrong(key, "not an object");
        for (const auto& [name, inner] : value.items()) {
            ARCA_CHECK(readVmMember(name, inner, settings.vm));
        }
        return {};
    }
    if (key == "connect") return readConnect(value, settings.connect);
    if (key == "allowed_annotations") return readTexts(value, key, settings.allowed_annotations);
    return wrong(base::printable(key), "no such member");
}

Result<uint32_t> annotationNumber(const std::string& name, const std::string& text, uint32_t least,
                                  uint32_t most) {
    const auto number = base::parseNumber<uint32_t>(text);
    if (!number) return wrong("annotation " + name, "not a number");
    ARCA_CHECK(checkRange(*number, "annotation " + name, least, most));
    return *number;
}

}  // namespace

Result<Settings> parseSettings(const std::string& text) {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) return fail(Code::kInvalidArgument, "not a JSON object");
    Settings settings;
    for (const auto& [key, value] : json.items()) ARCA_CHECK(readMember(key, value, settings));
    return settings;
}

Result<Settings> readSettings(const std::string& given) {
    std::string path = given;
    if (path.empty()) path = environmentValue("ARCA_CONFIGURATION");
    const bool is_default = path.empty();
    if (is_default) path = kDefaultFile;
    constexpr size_t kMaxBytes = size_t{1} << 20U;
    const auto text = base::readFile(path, kMaxBytes);
    if (!text) {
        if (is_default && text.error().code() == Code::kNotFound) return Settings();
        return fail(text.error());
    }
    auto settings = parseSettings(*text);
    if (!settings) return fail(std::move(settings).error().withContext(base::printable(path)));
    return settings;
}

Result<> applyAnnotations(const spec::Annotations& annotations, Settings& settings) {
    constexpr std::string_view kOurs = "io.arca.";
    for (const auto& [name, value] : annotations) {
        if (name.rfind(kOurs, 0) != 0) continue;
        const auto& allowed = settings.allowed_annotations;
        if (std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
            return fail(Code::kPermissionDenied,
                        "annotation " + base::printable(name) +
                            ": not in allowed_annotations of the host's configuration");
        }
        VmSettings& vm = settings.vm;
        if (name == kSandboxAnnotation) {
            settings.sandbox = value;
        } else if (name == kMemoryAnnotation) {
            ARCA_TRY(vm.memory_mib, annotationNumber(name, value, kLeastMemoryMib, kMostMemoryMib));
        } else if (name == kVcpusAnnotation) {
            ARCA_TRY(vm.vcpus, annotationNumber(name, value, 1, kMostVcpus));
        } else if (name == kKernelAnnotation) {
            ARCA_CHECK(readPath(Json(value), "annotation " + name, vm.kernel));
        } else if (name == kInitrdAnnotation) {
            ARCA_CHECK(readPath(Json(value), "annotation " + name, vm.initrd));
        } else if (name == kAppendAnnotation) {
            vm.append = value;
        } else if (name == kRootfsImageAnnotation) {
            ARCA_CHECK(readPath(Json(value), "annotation " + name, vm.rootfs_image));
        } else if (name == kRootfsTypeAnnotation) {
            vm.rootfs_type = value;
        } else if (name == kRootfsDeviceAnnotation) {
            ARCA_CHECK(readPath(Json(value), "annotation " + name, settings.connect.device.path));
        } else if (name == kRootfsDeviceTypeAnnotation) {
            settings.connect.device.type = value;
        } else if (name == kRootfsDeviceOptionsAnnotation) {
            settings.connect.device.options.clear();
            for (const std::string_view option : base::split(value, ',')) {
                settings.connect.device.options.emplace_back(option);
            }
        } else if (name == kGuestHooksAnnotation) {
            auto stages = parseStages(value);
            if (!stages) return fail(std::move(stages).error().withContext("annotation " + name));
            vm.guest_hooks = std::move(*stages);
        } else {
            return fail(Code::kInvalidArgument,
                        "annotation " + base::printable(name) + ": no such setting");
        }
    }
    return {};
}

}  // namespace arca::runtime
