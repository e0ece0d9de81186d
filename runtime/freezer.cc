#include "runtime/freezer.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/files.h"
#include "base/strings.h"

namespace arca::runtime {
namespace {

using base::Result;

struct FreezerFile {
    const char* name;
    std::string_view frozen;  // what it holds in a frozen cgroup
    std::string_view thaw;    // what to write to it
};
// cgroup v2 has cgroup.freeze in each directory; v1 has freezer.state in one hierarchy.
constexpr FreezerFile kV2{"cgroup.freeze", "1", "0"};
constexpr FreezerFile kV1{"freezer.state", "FROZEN", "THAWED"};

// The file of this cgroup and whether it is frozen by it.
bool frozenBy(const std::string& dir, const FreezerFile& file) {
    const auto text = base::readFile(dir + "/" + file.name, 64);
    return text && base::trim(*text) == file.frozen;
}

}  // namespace

bool isFrozen(const std::vector<std::string>& cgroup_paths) {
    for (const std::string& dir : cgroup_paths) {
        if (frozenBy(dir, kV2) || frozenBy(dir, kV1)) return true;
    }
    return false;
}

Result<> thaw(const std::vector<std::string>& cgroup_paths) {
    for (const std::string& dir : cgroup_paths) {
        for (const FreezerFile& file : {kV2, kV1}) {
            if (!frozenBy(dir, file)) continue;
            ARCA_CHECK(base::writeControlFile(AT_FDCWD, dir + "/" + file.name, file.thaw));
        }
    }
    return {};
}

}  // namespace arca::runtime
