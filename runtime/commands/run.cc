// run: create and start in one; in the foreground also wait and delete.
#include "base/log.h"
#include "runtime/body.h"
#include "runtime/commands/commands.h"
#include "runtime/foreground.h"
#include "runtime/lifecycle.h"
#include "runtime/notify.h"
#include "runtime/pid_file.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

// Ends what has been made when a later step of this call fails.
void undoRun(Container& container) {
    Result<> undone = killInit(container);
    if (undone) undone = destroyContainer(container);
    reapEndedChildren();
    if (!undone && undone.error().code() != Code::kNotFound) {
        base::log::warning("cleaning up after the failure: " + undone.error().message());
    }
}

// The container has ended: deletes it, unless another call has done so while nobody held the lock.
Result<> removeEnded(Container& container) {
    auto locked = container.dir.lock();
    if (!locked) {
        if (locked.error().code() == Code::kNotFound) return {};
        return locked;
    }
    return destroyContainer(container);
}

}  // namespace

Result<int> runCommand(Context& context) {
    const Arguments& arguments = context.arguments;
    ARCA_TRY(const SignalInbox signals, SignalInbox::open());
    ARCA_TRY(CreatedContainer created, createContainer(context, Action::kRun, signals));
    Container& container = created.container;
    const bool detach = arguments.isSet("detach");

    ForegroundJob job;
    job.process = container.record.init;
    if (!detach) job.terminal = std::move(created.terminal);
    job.adopt_orphans = !arguments.isSet("no-subreaper");
    job.on_long_wait = [&] { container.driver->disconnect(); };

    auto notify = NotifyProxy::open(container.dir);
    Result<> started = notify ? prepareTerminal(job) : fail(notify.error());
    if (started) started = startContainer(container);
    if (started) {
        started = writePidFile(arguments.text("pid-file"), container.record.init.pid);
    }
    if (!started) {
        undoRun(container);
        return fail(std::move(started).error());
    }
    container.dir.unlock();
    if (detach) {
        ARCA_CHECK(notify->waitReady(job.process));
        return 0;
    }
    job.notify = &*notify;
    ARCA_TRY(const int code, waitInForeground(job, signals));
    reportLoss(container, code);
    if (!arguments.isSet("keep")) ARCA_CHECK(removeEnded(container));
    return code;
}

}  // namespace arca::runtime
