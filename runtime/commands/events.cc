// events: statistics of a container, and word of the OOM killer.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

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

// Prints "oom" when there were more kills than at the look before.
class OomCounter {
 public:
    explicit OomCounter(const std::string& id) : id_(id) {}
    Result<> look(const Driver::Statistics& statistics) {
        const bool rose = kills_ && statistics.oom_kills > *kills_;
        kills_ = statistics.oom_kills;
        if (rose) ARCA_CHECK(printOut(eventLine("oom", id_, {})));
        return {};
    }

 private:
    const std::string& id_;
    std::optional<uint64_t> kills_;
};

// So that no sum of times overflows.
constexpr std::chrono::nanoseconds kLongestInterval = std::chrono::hours(24 * 365);

// Prints what has become of the container's services since the look before.
class ServiceNews {
 public:
    ServiceNews(const std::string& id, std::unique_ptr<ServiceWatch> watch)
        : id_(id), watch_(std::move(watch)) {}

    [[nodiscard]] int fd() const { return watch_ ? watch_->fd() : -1; }

    Result<> look() {
        while (watch_) {
            ARCA_TRY(const std::optional<ServiceEnd> end, watch_->next());
            if (!end) return {};
            const nlohmann::ordered_json data{{"name", end->name},
                                              {"exitCode", end->exit_code},
                                              {"reason", end->reason},
                                              {"kills", end->kills}};
            ARCA_CHECK(printOut(eventLine(
                "service", id_,
                data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace))));
        }
        return {};
    }

    // The container has ended: what its agent still has to say of it.
    Result<> finish() {
        constexpr int kLastWordMs = 1000;
        while (fd() >= 0) {
            pollfd entry{fd(), POLLIN, 0};
            if (::poll(&entry, 1, kLastWordMs) <= 0) return {};
            ARCA_CHECK(look());
        }
        return {};
    }

 private:
    const std::string& id_;
    std::unique_ptr<ServiceWatch> watch_;
};

enum class Woken { kByTime, kByOom, kByService, kByEnd };

// Waits for the container's end, for word of the OOM killer or of a service, or until `deadline`.
Result<Woken> waitForNews(int pidfd, int oom_fd, int service_fd,
                          std::chrono::steady_clock::time_point deadline) {
    while (true) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) return Woken::kByTime;
        constexpr int64_t kMostMs = std::numeric_limits<int>::max();
        pollfd fds[] = {{pidfd, POLLIN, 0}, {oom_fd, POLLIN, 0}, {service_fd, POLLIN, 0}};
        const int n =
            ::poll(fds, std::size(fds), static_cast<int>(std::min<int64_t>(left.count(), kMostMs)));
        if (n < 0 && errno != EINTR) return base::failErrno("poll");
        if (n <= 0) continue;
        if (fds[0].revents != 0) return Woken::kByEnd;
        if (fds[2].revents != 0) return Woken::kByService;
        char buffer[4096];
        (void)::read(oom_fd, buffer, sizeof buffer);
        return Woken::kByOom;
    }
}

// Prints until the container ends.
Result<int> follow(Container& container, std::chrono::nanoseconds interval) {
    ARCA_TRY(const base::UniqueFd pidfd, base::openPidfd(container.record.init));
    const base::UniqueFd oom = container.driver->watchOom(container.dir);
    ARCA_TRY(auto watch, container.driver->watchServices(container.record.id));
    ServiceNews services(container.record.id, std::move(watch));
    OomCounter counter(container.record.id);
    Woken woken = Woken::kByTime;
    auto deadline = std::chrono::steady_clock::now();
    interval = std::min(interval, kLongestInterval);
    while (true) {
        if (woken == Woken::kByEnd) ARCA_CHECK(services.finish());
        auto statistics = statisticsOf(container);
        if (!statistics) {
            const auto running = checkRunning(container);
            if (!running) return 0;
            return fail(std::move(statistics).error());
        }
        ARCA_CHECK(counter.look(*statistics));
        if (woken == Woken::kByEnd) return 0;
        if (woken == Woken::kByTime) {
            ARCA_CHECK(printOut(eventLine("stats", container.record.id, statistics->data)));
            deadline = std::chrono::steady_clock::now() + interval;
        }
        container.driver->disconnect();
        do {
            ARCA_CHECK(services.look());
            ARCA_TRY(woken, waitForNews(pidfd.get(), oom.get(), services.fd(), deadline));
        } while (woken == Woken::kByService);
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
