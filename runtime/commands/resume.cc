// resume: thaws the processes of a container.
#include "base/error_texts.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"

namespace arca::runtime {

base::Result<int> resumeCommand(Context& context) {
    ARCA_TRY(Container container,
             openContainer(context, context.arguments.positional().front(), Lock::kTake));
    ARCA_TRY(const Status status, container.status());
    if (status != Status::kPaused) {
        return base::fail(base::Code::kFailedPrecondition, base::texts::kContainerNotPaused);
    }
    ARCA_CHECK(container.driver->resume(container.record.id));
    return 0;
}

}  // namespace arca::runtime
