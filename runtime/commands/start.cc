// start: lets the program of a created container run.
#include "base/error_texts.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/notify.h"

namespace arca::runtime {

using base::Code;
using base::fail;
namespace texts = base::texts;

base::Result<int> startCommand(Context& context) {
    ARCA_TRY(Container container,
             openContainer(context, context.arguments.positional().front(), Lock::kTake));
    ARCA_TRY(const Status status, container.status());
    switch (status) {
        case Status::kCreated:
            break;
        case Status::kRunning:
            return fail(Code::kFailedPrecondition, texts::kStartRunning);
        case Status::kPaused:
            return fail(Code::kFailedPrecondition, texts::kStartPaused);
        case Status::kCreating:
        case Status::kStopped:
            return fail(Code::kFailedPrecondition, texts::kStartStopped);
    }
    ARCA_TRY(NotifyProxy notify, NotifyProxy::open(container.dir));
    ARCA_CHECK(startContainer(container));
    container.dir.unlock();  // readiness may take its time
    ARCA_CHECK(notify.waitReady(container.record.init));
    return 0;
}

}  // namespace arca::runtime
