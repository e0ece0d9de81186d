#include "spec/plan.h"

#include <array>

#include "spec/encode.h"
#include "spec/json_writer.h"
#include "spec/value_rules.h"

namespace arca::spec {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// RFC 4648, with padding.
std::string toBase64(std::string_view bytes) {
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (size_t at = 0; at < bytes.size(); at += 3) {
        const std::string_view group = bytes.substr(at, 3);
        uint32_t bits = 0;
        for (size_t i = 0; i < 3; ++i) {
            bits = (bits << 8U) | (i < group.size() ? static_cast<unsigned char>(group[i]) : 0U);
        }
        for (size_t i = 0; i < 4; ++i) {
            out += i <= group.size() ? kBase64[(bits >> (18 - 6 * i)) & 63U] : '=';
        }
    }
    return out;
}

constexpr std::array<int8_t, 256> makeBase64Values() {
    std::array<int8_t, 256> values{};
    for (int8_t& value : values) value = -1;
    for (size_t i = 0; i < kBase64.size(); ++i) {
        values[static_cast<unsigned char>(kBase64[i])] = static_cast<int8_t>(i);
    }
    return values;
}
constexpr std::array<int8_t, 256> kBase64Values = makeBase64Values();

// False when `text` is not what toBase64() makes.
bool fromBase64(std::string_view text, std::string& out) {
    if (text.size() % 4 != 0) return false;
    size_t padding = 0;
    while (padding < 2 && text.ends_with('=')) {
        text.remove_suffix(1);
        ++padding;
    }
    out.clear();
    out.reserve(text.size() / 4 * 3 + 2);
    uint32_t bits = 0;
    uint32_t count = 0;
    for (const char c : text) {
        const int8_t value = kBase64Values[static_cast<unsigned char>(c)];
        if (value < 0) return false;
        bits = (bits << 6U) | static_cast<uint32_t>(value);
        count += 6;
        if (count < 8) continue;
        count -= 8;
        out += static_cast<char>((bits >> count) & 0xffU);
    }
    return true;
}

void getKind(const JsonObject& object, PlanKind& target) {
    std::string kind;
    object.require("kind", kind);
    if (kind != "init" && kind != "exec") object.fail("kind", shown(kind) + " is no kind of plan");
    target = kind == "exec" ? PlanKind::kExec : PlanKind::kInit;
}

}  // namespace

static void decode(JsonValue value, Plan& target) {
    const JsonObject object(value);
    getKind(object, target.kind);
    object.require("containerId", target.container_id);
    object.get("bundle", target.bundle);
    object.require("spec", target.spec);
    object.get("noPivot", target.no_pivot);
    object.get("noNewKeyring", target.no_new_keyring);
    getAtLeast(object, "preserveFds", target.preserve_fds, 0);
    object.get("waitForHooks", target.wait_for_hooks);
    getAtLeast(object, "initPid", target.init_pid, 0);
    object.get("initStartTimeTicks", target.init_start_time_ticks);
    std::string program;
    object.get("seccompProgram", program);
    if (!fromBase64(program, target.seccomp_program)) object.fail("seccompProgram", "is no base64");
    object.get("seccompFlags", target.seccomp_flags);
    object.get("seccompNotify", target.seccomp_notify);
    object.get("cgroupPaths", target.cgroup_paths);
    object.get("unifiedCgroup", target.unified_cgroup);
}

std::string writePlan(const Plan& plan) {
    JsonWriter out;
    out.reserve((size_t{24} << 10U) + plan.seccomp_program.size() * 4 / 3);
    out.beginObject();
    out.name("kind");
    out.string(plan.kind == PlanKind::kExec ? "exec" : "init");
    put(out, "containerId", plan.container_id);
    putSet(out, "bundle", plan.bundle);
    put(out, "spec", plan.spec);
    putSet(out, "noPivot", plan.no_pivot);
    putSet(out, "noNewKeyring", plan.no_new_keyring);
    putSet(out, "preserveFds", plan.preserve_fds);
    putSet(out, "waitForHooks", plan.wait_for_hooks);
    putSet(out, "initPid", plan.init_pid);
    putSet(out, "initStartTimeTicks", plan.init_start_time_ticks);
    putSet(out, "seccompProgram", toBase64(plan.seccomp_program));
    putSet(out, "seccompFlags", plan.seccomp_flags);
    putSet(out, "seccompNotify", plan.seccomp_notify);
    putSet(out, "cgroupPaths", plan.cgroup_paths);
    putSet(out, "unifiedCgroup", plan.unified_cgroup);
    out.endObject();
    return out.take();
}

base::Result<Plan> parsePlan(std::string_view json) {
    ARCA_TRY(JsonReader reader, JsonReader::parse(json, JsonUtf8::kRaw, Source::kWire));
    Plan plan;
    decode(reader.root(), plan);
    if (reader.failed()) return base::fail(reader.takeFailure());
    return plan;
}

}  // namespace arca::spec
