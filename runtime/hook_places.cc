#include "runtime/hook_places.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

namespace {

Result<> checkNoServices(const std::string& stage, const std::vector<spec::Hook>& hooks) {
    for (size_t i = 0; i < hooks.size(); ++i) {
        if (!hooks[i].service) continue;
        return fail(Code::kUnsupported,
                    "hooks." + stage + "[" + std::to_string(i) +
                        "].service: this hook runs on the host, and only guests run services "
                        "(vm.guest_hooks of the configuration can move its stage)");
    }
    return {};
}

}  // namespace

Result<spec::Hooks> takeHostHooks(const std::string& sandbox,
                                  const std::vector<std::string>& in_guest, spec::Hooks& hooks) {
    const bool local = sandbox == "local";
    spec::Hooks host;
    for (const char* stage : {"prestart", "createRuntime", "poststart", "poststop"}) {
        const bool moved = std::find(in_guest.begin(), in_guest.end(), stage) != in_guest.end();
        if (moved && !local) continue;
        std::vector<spec::Hook>& list = *hooks.find(stage);
        ARCA_CHECK(checkNoServices(stage, list));
        *host.find(stage) = local ? list : std::exchange(list, {});
    }
    return host;
}

Result<> checkStage(const std::string& stage) {
    if (spec::Hooks().find(stage) != nullptr) return {};
    return fail(Code::kInvalidArgument, base::printable(stage) + ": no stage of hooks");
}

Result<std::vector<std::string>> parseStages(const std::string& text) {
    std::vector<std::string> stages;
    for (const std::string_view part : base::split(text, ',')) {
        const std::string stage(base::trim(part));
        if (stage.empty()) continue;
        ARCA_CHECK(checkStage(stage));
        stages.push_back(stage);
    }
    return stages;
}

}  // namespace arca::runtime
