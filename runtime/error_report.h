// How an error leaves the program: its words, where they are written, the exit code.
#pragma once

#include <string_view>

#include "base/result.h"
#include "runtime/arguments.h"

namespace arca::runtime {

// Opens the log that the global flags ask for. Without --log errors and warnings go to stderr as
// log lines. In a JSON log file nothing but errors is written unless --debug or --log-level asks
// for more: podman reads the whole file as one object.
base::Result<> setUpLog(const Arguments& globals);

// The error of command `name` as runc words it: "runc create failed: ...".
base::Error inCommandsWords(std::string_view name, const base::Error& error);

// One line on stderr; with a log file the bare text there and a log line in the file.
void reportError(const base::Error& error);

// 255 for exec, so that its own failures can be told from the program's exit codes; else 1.
int failureCode(std::string_view name);

}  // namespace arca::runtime
