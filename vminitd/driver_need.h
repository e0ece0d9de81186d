// Which kernel modules have to be loaded before something can be done in a guest whose modules are
// still being loaded. To wait for all of them costs a start some tenths of a second.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spec/spec.h"

namespace arca::vminitd {

struct DriverNeed {
    enum class Kind { kNone, kSome, kAll };
    Kind kind = Kind::kAll;
    std::vector<std::string> modules{};  // of kSome: they and what they stand on
};

// To make that mount. All where a disk may be behind it.
DriverNeed driversForMount(std::string_view type, const std::vector<std::string>& options);

// To set up the link of that name.
DriverNeed driversForLink(std::string_view name);

// For a process of the container: its mounts, its devices, its network, and whatever it may do with
// the rights to mount or to make links by itself.
DriverNeed driversForProcess(const spec::Spec& config);

}  // namespace arca::vminitd
