// Finds the program of process.args[0] as the process itself would.
//
// Runs inside the container's root, as its user, so that what is found can be executed. The texts
// are the ones that callers of runc match. Source: execvp(3); Go's exec.LookPath.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::vmexec {

// The path to execute. A name with a slash is used as it is; any other is looked up in PATH of
// `env` (its last entry counts). Fails with `exec: "NAME": REASON`.
base::Result<std::string> findProgram(const std::string& name, const std::vector<std::string>& env);

// The value of variable `name` in `env`: its last entry, "" when there is none.
std::string_view envValue(const std::vector<std::string>& env, std::string_view name);

}  // namespace arca::vmexec
