// crun's --regex of kill and delete.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/context.h"

namespace arca::runtime {

// Ids of all containers that the extended regular expression matches anywhere, sorted.
// kInvalidArgument when it is none.
base::Result<std::vector<std::string>> matchingIds(const Context& context,
                                                   const std::string& expression);

}  // namespace arca::runtime
