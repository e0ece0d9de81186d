// What this build can do, in the shape of the specification's features.md, and nothing that it
// cannot.
#pragma once

#include <string>
#include <vector>

namespace arca::spec {

// 4-space indented JSON with a final newline. Compile-time facts: independent of the host kernel.
std::string featuresJson();

// The mount options that mounts[].options may hold with a meaning of their own; all else is
// file-system data.
const std::vector<std::string>& mountOptionNames();

}  // namespace arca::spec
