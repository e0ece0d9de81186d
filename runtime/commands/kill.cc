// kill: a signal to a container.
#include <signal.h>

#include <algorithm>

#include "base/error_texts.h"
#include "base/signals.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/regex_ids.h"
#include "runtime/lifecycle.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
namespace texts = base::texts;

// Signals every process of the container. SIGKILL is sent until no new process turns up, because
// one may fork while the list is made.
Result<> signalAll(Container& container, int signal_number) {
    std::vector<pid_t> done;
    constexpr int kMostRounds = 100;
    for (int round = 0; round < kMostRounds; ++round) {
        ARCA_TRY(const std::vector<pid_t> pids,
                 container.driver->listProcesses(container.record.id));
        bool fresh = false;
        for (const pid_t pid : pids) {
            if (std::find(done.begin(), done.end(), pid) != done.end()) continue;
            done.push_back(pid);
            fresh = true;
            ARCA_CHECK(container.driver->signalProcess(pid, signal_number));
        }
        if (!fresh || signal_number != SIGKILL) break;
    }
    return {};
}

Result<> signalInitOf(Container& container, int signal_number) {
    auto sent = container.driver->signalInit(container.dir, container.record, signal_number);
    if (sent) return {};
    if (sent.error().code() == Code::kNotFound) {
        return fail(Code::kFailedPrecondition, texts::kContainerNotRunning);
    }
    return sent;
}

Result<> killOne(const Context& context, const std::string& id, int signal_number) {
    const bool all = context.arguments.isSet("all");
    ARCA_TRY(Container container, openContainer(context, id, Lock::kNone));
    ARCA_TRY(const Status status, container.status());
    const bool alive = status != Status::kStopped && status != Status::kCreating;
    if (!alive && !all) return fail(Code::kFailedPrecondition, texts::kContainerNotRunning);
    // With a pid namespace of its own nothing outlives the init.
    const bool private_pids = container.record.private_pid_namespace;
    if (alive) {
        auto sent = signalInitOf(container, signal_number);
        if (!sent && !all) return sent;
    }
    const bool whole_cgroup = all || (signal_number == SIGKILL && !private_pids);
    if (!whole_cgroup || (!alive && private_pids)) return {};
    return signalAll(container, signal_number);
}

}  // namespace

Result<int> killCommand(Context& context) {
    const std::vector<std::string>& words = context.arguments.positional();
    ARCA_TRY(const int signal_number, base::parseSignal(words.size() > 1 ? words[1] : "SIGTERM"));
    if (!context.arguments.isSet("regex")) {
        ARCA_CHECK(killOne(context, words.front(), signal_number));
        return 0;
    }
    ARCA_TRY(const std::vector<std::string> ids, matchingIds(context, words.front()));
    for (const std::string& id : ids) ARCA_CHECK(killOne(context, id, signal_number));
    return 0;
}

}  // namespace arca::runtime
