// A folder of hook files: read anew for each container, so that what is put there counts at once.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "hooks/hook_file.h"
#include "spec/spec.h"

namespace arca::hooks {

// The *.json files of `folder`, in the order of their names without regard to case. A folder that
// is not there has none. kFailedPrecondition names the file that cannot be read or understood, and
// what in it: then none counts, for one that is left out could be the one that keeps watch.
base::Result<std::vector<HookFile>> loadHooksDir(const std::string& folder);

// Appends the hooks of those `files` that are for `spec` to its lists, in their order.
void addMatchingHooks(const std::vector<HookFile>& files, spec::Spec& spec);

}  // namespace arca::hooks
