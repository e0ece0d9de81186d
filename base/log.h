// Log lines in the shapes that callers of runtimes parse: runc's text and JSON forms.
//
// One Logger a program, set up once in main before threads start; log() may be called from any
// thread. `error` = the operation failed; `warning` = what the spec calls a warning; the rest is
// `debug`.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace arca::base::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format {
    kText,
    kJson,
    kConsole,  // of a VM: "2026-01-02T03:04:05.678Z info vminitd: message"
};

struct Options {
    std::string path{};  // empty: stderr; opened O_APPEND|O_CREAT, 0644
    Format format = Format::kText;
    Level level = Level::kInfo;
    std::string label{};  // of kConsole: which program speaks
};

// Opens the log. Fails when `options.path` cannot be opened.
Result<> setUp(const Options& options);

// Writes one line, with one write(2), so that several processes can share the file:
//   text  time="2026-01-02T03:04:05Z" level=error msg="..."
//   json  {"level":"error","msg":"...","time":"2026-01-02T03:04:05Z"}
// A console that takes nothing more loses lines after a short wait: it must not hold up who speaks.
// Control bytes are escaped and invalid UTF-8 is replaced, so that a JSON line always decodes.
// Never fails.
void write(Level level, std::string_view message);

inline void debug(std::string_view message) {
    write(Level::kDebug, message);
}
inline void info(std::string_view message) {
    write(Level::kInfo, message);
}
inline void warning(std::string_view message) {
    write(Level::kWarning, message);
}
inline void error(std::string_view message) {
    write(Level::kError, message);
}

// Writes a line that another program has said, whatever the level: its own name stands where the
// label would, or before the text in the other forms.
void relay(std::string_view program, std::string_view line);

// True when a --log file is in use, i.e. errors are to go to stderr too.
bool hasFile();

// True when debug lines are written, i.e. programs that are started should write theirs.
bool writesDebug();

// The line that write() would make, without the line end. For tests. `label`: of kConsole.
std::string formatLine(Format format, Level level, std::string_view message, std::string_view time,
                       std::string_view label = {});

}  // namespace arca::base::log
