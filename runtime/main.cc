// arca-runtime: an OCI runtime's command line. Manual: arca-runtime(8).
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "runtime/arguments.h"
#include "runtime/context.h"
#include "runtime/error_report.h"
#include "runtime/listing.h"
#include "runtime/signals.h"
#include "runtime/version.h"

namespace arca::runtime {
namespace {

using base::Error;
using base::Result;

constexpr int kFailure = 1;

Result<int> execute(const Line& line) {
    Context context{{}, line.arguments, {}};
    // Before any descriptor is opened: one of ours would take the number of a missing one.
    Result<InheritedFds> fds;
    if (line.arguments.knows("preserve-fds")) {
        const bool is_exec = line.command->name == "exec";
        fds = inheritedFds(line.arguments.text("preserve-fds"),
                           is_exec ? SocketActivation::kIgnore : SocketActivation::kPass);
    }
    ARCA_CHECK(setUpLog(line.globals));
    if (!fds) return base::fail(std::move(fds).error());
    context.fds = std::move(*fds);
    ARCA_TRY(context.globals, resolveGlobals(line.globals));
    return line.command->run(context);
}

// Help to stderr, then the error.
int reportUsage(const Line& line) {
    const auto logging = setUpLog(line.globals);
    const std::string help = line.command == nullptr ? helpText() : helpText(*line.command);
    (void)base::writeAll(STDERR_FILENO, "Incorrect Usage.\n\n" + help + "\n");
    reportError(*line.error);
    if (!logging) reportError(logging.error());
    return kFailure;
}

int runLine(const Line& line) {
    // An error counts more than a wish for help: `create --hlep --help` is not done.
    if (line.error) return reportUsage(line);
    if (line.version || line.help) {
        const std::string text = line.version              ? versionText()
                                 : line.command == nullptr ? helpText()
                                                           : helpText(*line.command);
        return printOut(text) ? 0 : kFailure;
    }
    const auto code = execute(line);
    if (code) return *code;
    const std::string_view name = line.command->name;
    reportError(inCommandsWords(name, code.error()));
    return failureCode(name);
}

}  // namespace
}  // namespace arca::runtime

int main(int argc, char** argv) {
    arca::runtime::prepareProcess();
    try {
        const std::vector<std::string> words(argv, argv + argc);
        return arca::runtime::runLine(arca::runtime::parseLine(words));
    } catch (const std::exception& error) {
        arca::runtime::reportError({arca::base::Code::kInternal, error.what()});
        return arca::runtime::kFailure;
    }
}
