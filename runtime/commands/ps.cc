// ps: the processes of a container.
#include <unistd.h>

#include <ctime>

#include "base/error_texts.h"
#include "base/strings.h"
#include "base/subprocess.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/listing.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

// Engines give us a nearly empty environment; PATH is only the first guess.
Result<std::string> findPs() {
    const std::string path = environmentValue("PATH") + ":/usr/bin:/bin";
    for (const std::string_view dir : base::split(path, ':')) {
        if (dir.empty()) continue;
        const std::string candidate = std::string(dir) + "/ps";
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return fail(Code::kNotFound, "exec: \"ps\": executable file not found in $PATH");
}

Result<std::string> runPs(const std::vector<std::string>& options) {
    base::Command command;
    ARCA_TRY(command.path, findPs());
    command.args = {"ps"};
    if (options.empty()) command.args.emplace_back("-ef");
    command.args.insert(command.args.end(), options.begin(), options.end());
    for (char** entry = environ; *entry != nullptr; ++entry) command.env.emplace_back(*entry);
    command.output_limit_bytes = size_t{64} << 20U;
    ARCA_TRY(base::Outcome outcome, base::runCommand(command));
    if (outcome.exit_code != 0) {
        return fail(Code::kSystem, "ps: exit status " + std::to_string(outcome.exit_code) + ": " +
                                       base::printable(base::trim(outcome.err)));
    }
    return std::move(outcome.out);
}

// The numbers of processes in a guest say nothing here, or name somebody else: who asks for
// numbers, as engines do for their own `top`, gets the one of this host.
Result<int> psOfGuest(Container& container, Status status, bool numbers,
                      const std::vector<std::string>& options) {
    const bool stopped = status == Status::kStopped;
    if (numbers) {
        std::vector<pid_t> pids;
        if (!stopped && container.record.init.pid > 0) pids.push_back(container.record.init.pid);
        return printOut(pidsJson(pids));
    }
    if (!options.empty() && options != std::vector<std::string>{"-ef"}) {
        return fail(Code::kUnsupported,
                    "ps: the processes are in a guest, where no ps takes options: only -ef is "
                    "supported, or exec the container's own ps");
    }
    std::vector<ProcessRow> rows;
    if (!stopped) {
        ARCA_TRY(rows, container.driver->describeProcesses(container.record.id));
    }
    return printOut(processTable(rows, std::time(nullptr)));
}

}  // namespace

Result<int> psCommand(Context& context) {
    const std::string& format = context.arguments.text("format");
    if (!format.empty() && format != "table" && format != "json") {
        return fail(Code::kInvalidArgument, "invalid format option");
    }
    const std::vector<std::string>& words = context.arguments.positional();
    ARCA_TRY(Container container, openContainer(context, words.front(), Lock::kNone));
    ARCA_TRY(const Status status, container.status());
    const std::vector<std::string> options(words.begin() + 1, words.end());
    if (!container.driver->sharesPids()) {
        return psOfGuest(container, status, format == "json", options);
    }
    std::vector<pid_t> pids;
    if (status != Status::kStopped || !container.record.private_pid_namespace) {
        ARCA_TRY(pids, container.driver->listProcesses(container.record.id));
    }
    if (format == "json") return printOut(pidsJson(pids));
    ARCA_TRY(const std::string output, runPs(options));
    ARCA_TRY(const std::string filtered, filterPs(output, pids));
    return printOut(filtered);
}

}  // namespace arca::runtime
