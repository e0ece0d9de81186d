// A configuration for a guest that is not ours: Apple's agent decodes strictly and ignores much.
//
// What it would leave out silently, and what a container's isolation may depend on, is refused
// unless the host's configuration says that it may be left out (`connect.ignore`).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::runtime {

// What files lose when such a guest unpacks a copy of them (archive/archive.h).
inline constexpr char kFileAttributesFeature[] = "file-attributes";

// Features that `connect.ignore` may name: seccomp, hooks, devices, network, user-namespace,
// propagation, resources, labels, file-attributes.
bool isIgnorableFeature(std::string_view name);

// The JSON text for such a guest. kUnsupported names the first feature of `spec` that is not in
// `ignore`. `spec` is a guest's already (guest_spec.h).
// Source: the required keys and what is honoured of the guest protocol's decoder.
base::Result<std::string> writeStrictSpec(const spec::Spec& spec,
                                          const std::vector<std::string>& ignore);

}  // namespace arca::runtime
