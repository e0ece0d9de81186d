// The process of an exec: from a file, or from the container's own and the flags.
#pragma once

#include <string>

#include "base/result.h"
#include "runtime/arguments.h"
#include "spec/spec.h"

namespace arca::runtime {

// Reads exec's --process file. Its warnings are logged.
base::Result<spec::Process> processFromFile(const std::string& path);

// The container's process `own` with the words after the id as its program and the flags applied.
// `home_given`: HOME in `own` is the configuration's; if not it belongs to the container's user and
// is dropped for another one, who gets his own.
base::Result<spec::Process> processFromFlags(const Arguments& arguments, spec::Process own,
                                             bool home_given);

}  // namespace arca::runtime
