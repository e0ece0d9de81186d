#include "runtime/error_report.h"

#include <unistd.h>

#include <string>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
namespace log = base::log;
namespace texts = base::texts;

Result<log::Level> wantedLevel(const Arguments& globals, bool json_file) {
    const std::string& name = globals.text("log-level");
    if (globals.isSet("debug") || name == "debug") return log::Level::kDebug;
    if (name == "warning") return log::Level::kWarning;
    if (name == "error") return log::Level::kError;
    if (!name.empty()) {
        return fail(Code::kInvalidArgument, "invalid log-level: " + base::printable(name));
    }
    return json_file ? log::Level::kError : log::Level::kInfo;
}

// crun's forms of --log: a path, or KIND:WHERE.
Result<std::string> logPath(const std::string& text) {
    constexpr std::string_view kFile = "file:";
    if (text.rfind(kFile, 0) == 0) return text.substr(kFile.size());
    for (const std::string_view kind : {"journald:", "syslog:"}) {
        if (text.rfind(kind, 0) == 0) {
            return fail(Code::kUnsupported,
                        "--log " + base::printable(text) + ": only files are supported");
        }
    }
    return text;
}

}  // namespace

Result<> setUpLog(const Arguments& globals) {
    log::Options options;
    const std::string& format = globals.text("log-format");
    if (!format.empty() && format != "text" && format != "json") {
        return fail(Code::kInvalidArgument, "invalid log-format: " + base::printable(format));
    }
    options.format = format == "json" ? log::Format::kJson : log::Format::kText;
    ARCA_TRY(options.path, logPath(globals.text("log")));
    const bool json_file = options.format == log::Format::kJson && !options.path.empty();
    ARCA_TRY(options.level, wantedLevel(globals, json_file));
    return log::setUp(options);
}

base::Error inCommandsWords(std::string_view name, const base::Error& error) {
    std::string_view prefix;
    if (name == "create") prefix = texts::kCreateFailedPrefix;
    if (name == "run") prefix = texts::kRunFailedPrefix;
    if (name == "exec") prefix = texts::kExecFailedPrefix;
    return {error.code(), std::string(prefix) + error.message(), error.sysErrno()};
}

void reportError(const base::Error& error) {
    log::error(error.message());
    if (!log::hasFile()) return;  // then the line went to stderr already
    (void)base::writeAll(STDERR_FILENO, base::printable(error.message()) + "\n");
}

int failureCode(std::string_view name) {
    constexpr int kExecFailure = 255;
    return name == "exec" ? kExecFailure : 1;
}

}  // namespace arca::runtime
