// state: one container as JSON.
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/listing.h"

namespace arca::runtime {

base::Result<int> stateCommand(Context& context) {
    ARCA_TRY(Container container,
             openContainer(context, context.arguments.positional().front(), Lock::kNone));
    ARCA_TRY(const Status status, container.status());
    return printOut(stateJson(ListEntry{container.record, status, {}}));
}

}  // namespace arca::runtime
