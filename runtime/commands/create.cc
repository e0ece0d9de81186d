// create: from a bundle to a container that waits for start.
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"

namespace arca::runtime {

base::Result<int> createCommand(Context& context) {
    ARCA_TRY(const SignalInbox signals, SignalInbox::open());
    ARCA_CHECK(createContainer(context, Action::kCreate, signals));
    return 0;
}

}  // namespace arca::runtime
