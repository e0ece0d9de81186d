#include "runtime/version.h"

#include "spec/version.h"

#ifndef ARCA_COMMIT
#define ARCA_COMMIT ""
#endif

namespace arca::runtime {

std::string versionText() {
    std::string out = std::string("arca-runtime version ") + spec::kProjectVersion + "\n";
    const std::string commit = ARCA_COMMIT;
    if (!commit.empty()) out += "commit: " + commit + "\n";
    return out + "spec: " + spec::kOciVersionMax + "\n";
}

}  // namespace arca::runtime
