// update: changes limits of a container that has not ended.
#include <fcntl.h>
#include <unistd.h>

#include "base/error_texts.h"
#include "base/files.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/resources_update.h"

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
    return 0;
}

}  // namespace arca::runtime
