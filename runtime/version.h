// What --version prints.
#pragma once

#include <string>

namespace arca::runtime {

// One fact a line: "arca-runtime version X", "commit: HASH" when the build knows it, "spec: X".
std::string versionText();

}  // namespace arca::runtime
