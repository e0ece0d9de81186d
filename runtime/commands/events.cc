// events: statistics of a container, and word of the OOM killer.
#include <unistd.h>

#include <chrono>

#include "base/process.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/listing.h"
#include "runtime/units.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

std::string eventLine(const char* type, const std::string& id, const std::string& data) {
    // The id has only characters that stand for themselves in JSON.
    std::string line = std::string(R"({"type":")") + type + R"(","id":")" + id + "\"";
    if (!data.empty()) line += ",\"data\":" + data;
    return line + "}\n";
}

Result<> checkRunning(Container& container) {
    ARCA_TRY(const Status status, container.status());
    if (status != Status::kStopped && status != Status::kCreating) return {};
    return fail(Code::kFailedPrecondition,
                "container with id " + container.record.id + " is not running");
}

Result<Driver::Statistics> statisticsOf(Container& container) {
    auto statistics = container.driver->statistics(container.record.id);
    if (!statistics && statistics.error().code() == Code::kUnsupported) {
        return fail(Code::kUnsupported, "events: the agent does not offer statistics");
    }
    return statistics;
}

// Prints until the container ends. The counter of OOM kills is looked at with each of the
// statistics: a kill shows at the end of the interval in which it happened.
Result<int> follow(Container& container, std::chrono::nanoseconds interval) {
    ARCA_TRY(const base::UniqueFd pidfd, base::openPidfd(container.record.init));
    const auto wait = std::max(std::chrono::duration_cast<std::chrono::milliseconds>(interval),
                               std::chrono::milliseconds(1));
    std::optional<uint64_t> oom_kills;
    while (true) {
        auto statistics = statisticsOf(container);
        if (!statistics) {
            const auto running = checkRunning(container);
            if (!running) return 0;
            return fail(std::move(statistics).error());
        }
        if (oom_kills && statistics->oom_kills > *oom_kills) {
            ARCA_CHECK(printOut(eventLine("oom", container.record.id, {})));
        }
        oom_kills = statistics->oom_kills;
        ARCA_CHECK(printOut(eventLine("stats", container.record.id, statistics->data)));
        container.driver->disconnect();
        ARCA_TRY(const bool ended, base::waitExit(pidfd.get(), wait));
        if (ended) return 0;
    }
}

}  // namespace

Result<int> eventsCommand(Context& context) {
    const Arguments& arguments = context.arguments;
    std::chrono::nanoseconds interval = std::chrono::seconds(5);
    if (arguments.given("interval")) {
        ARCA_TRY(interval, parseDuration(arguments.text("interval")));
    }
    if (interval.count() <= 0) {
        return fail(Code::kInvalidArgument, "duration interval must be greater than 0");
    }
    ARCA_TRY(Container container,
             openContainer(context, arguments.positional().front(), Lock::kNone));
    ARCA_CHECK(checkRunning(container));
    if (!arguments.isSet("stats")) return follow(container, interval);
    ARCA_TRY(const Driver::Statistics statistics, statisticsOf(container));
    return printOut(eventLine("stats", container.record.id, statistics.data));
}

}  // namespace arca::runtime
