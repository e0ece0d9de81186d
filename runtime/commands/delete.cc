// delete: everything that a container holds, and its state.
#include <unistd.h>

#include "base/ids.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/regex_ids.h"
#include "runtime/lifecycle.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

// A directory without a record: a create or a delete died in it. There is nothing else of it, but
// an agent that is alive may still know something.
Result<> removeRemains(ContainerDir& dir, const StateStore& store) {
    ARCA_TRY(const std::unique_ptr<Driver> driver,
             openDriver({"local", dir.id(), store.fd(), nullptr}));
    if (::faccessat(dir.fd(), "guest", F_OK, 0) == 0) {
        ARCA_CHECK(driver->deleteProcess(dir.id(), dir.id()));
    }
    return dir.remove();
}

Result<> deleteOne(const Context& context, const std::string& id, bool force) {
    ARCA_CHECK(base::validateId(id));
    ARCA_TRY(StateStore store, StateStore::open(context.globals, StateStore::Missing::kAllow));
    ARCA_TRY(ContainerDir dir, store.find(id));
    ARCA_CHECK(dir.lock());
    auto record = dir.load();
    if (!record) {
        const bool missing = record.error().code() == Code::kNotFound;
        if (missing || force) ARCA_CHECK(removeRemains(dir, store));
        if (!missing && force) return {};  // a torn record, which only force looks past
        return fail(std::move(record).error());
    }
    ARCA_TRY(std::unique_ptr<Driver> driver,
             openDriver({record->sandbox, record->sandbox_id, store.fd(), nullptr}));
    Container container{std::move(store), std::move(dir), std::move(*record), std::move(driver)};
    // With the lock held nobody is creating it: one that is half-made counts as stopped.
    ARCA_TRY(const Status status, container.status());
    const bool alive = status == Status::kRunning || status == Status::kPaused;
    if (alive && !force) {
        return fail(Code::kFailedPrecondition,
                    "cannot delete container " + id +
                        " that is not stopped: " + std::string(statusName(status)));
    }
    if (alive || status == Status::kCreated) ARCA_CHECK(killInit(container));
    return destroyContainer(container);
}

}  // namespace

Result<int> deleteCommand(Context& context) {
    const bool force = context.arguments.isSet("force");
    const std::string& word = context.arguments.positional().front();
    std::vector<std::string> ids{word};
    if (context.arguments.isSet("regex")) {
        ARCA_TRY(ids, matchingIds(context, word));
    }
    for (const std::string& id : ids) {
        auto deleted = deleteOne(context, id, force);
        // Engines send `delete --force` after every end, also when there is nothing left.
        if (!deleted && force && deleted.error().code() == Code::kNotFound) continue;
        if (!deleted) return fail(std::move(deleted).error());
    }
    return 0;
}

}  // namespace arca::runtime
