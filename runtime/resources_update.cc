#include "runtime/resources_update.h"

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/strings.h"
#include "runtime/units.h"
#include "spec/parse.h"

namespace arca::runtime {
namespace {

using Json = nlohmann::ordered_json;
using base::Code;
using base::fail;
using base::Result;

// "memory without a limit" means memory and swap: a swap limit alone could not be kept.
void completeMemory(Json& resources) {
    const auto memory = resources.find("memory");
    if (memory == resources.end() || !memory->is_object()) return;
    const auto limit = memory->find("limit");
    if (limit == memory->end() || *limit != -1 || memory->contains("swap")) return;
    (*memory)["swap"] = -1;
}

Result<std::string> finish(Json& resources) {
    completeMemory(resources);
    std::string text = resources.dump(-1, ' ', false, Json::error_handler_t::replace);
    ARCA_CHECK(spec::parseResources(text));
    return text;
}

enum class Kind { kInteger, kBytes, kText };

struct FlagMember {
    const char* flag;
    const char* object;
    const char* member;
    Kind kind;
};

constexpr FlagMember kMembers[] = {
    {"blkio-weight", "blockIO", "weight", Kind::kInteger},
    {"cpu-period", "cpu", "period", Kind::kInteger},
    {"cpu-quota", "cpu", "quota", Kind::kInteger},
    {"cpu-burst", "cpu", "burst", Kind::kInteger},
    {"cpu-share", "cpu", "shares", Kind::kInteger},
    {"cpu-rt-period", "cpu", "realtimePeriod", Kind::kInteger},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::kInteger},
    {"cpu-idle", "cpu", "idle", Kind::kInteger},
    {"cpuset-cpus", "cpu", "cpus", Kind::kText},
    {"cpuset-mems", "cpu", "mems", Kind::kText},
    {"memory", "memory", "limit", Kind::kBytes},
    {"memory-reservation", "memory", "reservation", Kind::kBytes},
    {"memory-swap", "memory", "swap", Kind::kBytes},
    {"pids-limit", "pids", "limit", Kind::kInteger},
};

Result<Json> valueOf(const FlagMember& member, const std::string& text) {
    if (member.kind == Kind::kText) return Json(text);
    std::optional<int64_t> value;
    if (member.kind == Kind::kInteger) {
        value = base::parseNumber<int64_t>(text);
    } else if (const auto bytes = parseBytes(text)) {
        value = *bytes;
    }
    if (!value) {
        return fail(Code::kInvalidArgument,
                    "invalid value for " + std::string(member.flag) + ": " + base::printable(text));
    }
    return Json(*value);
}

}  // namespace

Result<std::string> resourcesFromFlags(const Arguments& arguments) {
    for (const char* flag : {"l3-cache-schema", "mem-bw-schema"}) {
        if (arguments.given(flag)) {
            return fail(Code::kUnsupported,
                        "--" + std::string(flag) + ": Intel RDT cannot be changed by update");
        }
    }
    for (const char* flag : {"kernel-memory", "kernel-memory-tcp"}) {
        if (arguments.given(flag)) {
            base::log::warning("--" + std::string(flag) +
                               " is ignored: the kernel has no such limit");
        }
    }
    Json resources = Json::object();
    for (const FlagMember& member : kMembers) {
        const std::string& text = arguments.text(member.flag);
        if (text.empty()) continue;
        ARCA_TRY(Json value, valueOf(member, text));
        resources[member.object][member.member] = std::move(value);
    }
    return finish(resources);
}

Result<std::string> resourcesFromJson(std::string_view text) {
    Json resources = Json::parse(text, nullptr, false);
    if (!resources.is_object()) {
        return fail(Code::kInvalidArgument, "resources: not a JSON object");
    }
    resources.erase("devices");
    for (const FlagMember& member : kMembers) {
        const auto object = resources.find(member.object);
        if (object == resources.end() || !object->is_object()) continue;
        const auto value = object->find(member.member);
        if (value != object->end() && (*value == 0 || *value == "")) object->erase(value);
    }
    if (const auto memory = resources.find("memory");
        memory != resources.end() && memory->is_object()) {
        memory->erase("kernel");  // zero from Docker, and nothing that the kernel still has
        memory->erase("kernelTCP");
    }
    // An object without a member says nothing, and of some (pids) it would not be valid.
    for (const char* name : {"memory", "cpu", "pids", "blockIO"}) {
        const auto object = resources.find(name);
        if (object != resources.end() && object->is_object() && object->empty()) {
            resources.erase(object);
        }
    }
    return finish(resources);
}

}  // namespace arca::runtime
