// What `update` is to change, as the LinuxResources object that goes to the agent.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "runtime/arguments.h"

namespace arca::runtime {

// From the flags of `update`. Only what was given is in it.
base::Result<std::string> resourcesFromFlags(const Arguments& arguments);

// From a document. Zeros and empty strings go: engines send them for "leave as it is" (Docker fills
// a struct of plain integers). Device rules go: they are never changed. kInvalidArgument when the
// rest is no valid LinuxResources.
base::Result<std::string> resourcesFromJson(std::string_view text);

}  // namespace arca::runtime
