// pause: freezes the processes of a container.
#include "base/error_texts.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"

namespace arca::runtime {

base::Result<int> pauseCommand(Context& context) {
    ARCA_TRY(Container container,
             openContainer(context, context.arguments.positional().front(), Lock::kTake));
    ARCA_TRY(const Status status, container.status());
    if (status != Status::kCreated && status != Status::kRunning) {
        return base::fail(base::Code::kFailedPrecondition, base::texts::kContainerNotRunning);
    }
    ARCA_CHECK(container.driver->pause(container.record.id));
    return 0;
}

}  // namespace arca::runtime
