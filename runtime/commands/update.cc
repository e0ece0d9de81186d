// update: changes limits of a container that has not ended.
#include <fcntl.h>
#include <unistd.h>

#include "base/error_texts.h"
#include "base/files.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/resources_update.h"
#include "runtime/systemd_cgroup.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

Result<std::string> readDocument(const std::string& path) {
    constexpr size_t kLimitBytes = size_t{1} << 20U;
    if (path == "-") return base::readAll(STDIN_FILENO, kLimitBytes);
    return base::readFile(path, kLimitBytes);
}

Result<std::string> wantedResources(const Arguments& arguments) {
    if (!arguments.given("resources")) return resourcesFromFlags(arguments);
    ARCA_TRY(const std::string text, readDocument(arguments.text("resources")));
    return resourcesFromJson(text);
}

// systemd has to know the limits, or it would undo them at its next daemon-reload. It rounds some
// of them as it writes them, so that the agent has the last word.
Result<> tellSystemd(Container& container, const std::string& resources) {
    ARCA_TRY(const spec::Spec config, container.driver->configuration(container.dir));
    if (!config.linux.resources) return {};
    auto told = updateScope(container.record, *config.linux.resources);
    if (!told) {
        return fail(
            std::move(told).error().withContext("the cgroup has the new limits, its unit has not"));
    }
    return container.driver->update(container.record.id, resources);
}

}  // namespace

Result<int> updateCommand(Context& context) {
    ARCA_TRY(const std::string resources, wantedResources(context.arguments));
    ARCA_TRY(Container container,
             openContainer(context, context.arguments.positional().front(), Lock::kTake));
    ARCA_TRY(const Status status, container.status());
    if (status == Status::kStopped || status == Status::kCreating) {
        return fail(Code::kFailedPrecondition, base::texts::kContainerNotRunning);
    }
    auto updated = container.driver->update(container.record.id, resources);
    if (!updated && updated.error().code() == Code::kUnsupported) {
        return fail(std::move(updated).error().withContext("update"));
    }
    if (!updated) return fail(std::move(updated).error());
    // With a guest the scope has no limits.
    if (container.record.scope && container.record.sandbox == "local")
        ARCA_CHECK(tellSystemd(container, resources));
    return 0;
}

}  // namespace arca::runtime
