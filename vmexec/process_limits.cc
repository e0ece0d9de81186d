#include "vmexec/process_limits.h"

#include <fcntl.h>
#include <sys/personality.h>
#include <sys/resource.h>

#include <string>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;

Result<> applyRlimits(std::span<const spec::Rlimit> limits) {
    for (const spec::Rlimit& limit : limits) {
        const rlimit value{limit.soft, limit.hard};
        if (::setrlimit(static_cast<__rlimit_resource>(limit.resource), &value) != 0) {
            return failErrno("set " + limit.type + " to " + std::to_string(limit.soft) + ":" +
                             std::to_string(limit.hard));
        }
    }
    return {};
}

Result<> setOomScoreAdj(int32_t value) {
    return base::writeControlFile(AT_FDCWD, "/proc/self/oom_score_adj", std::to_string(value));
}

Result<> applyPersonality(const spec::Personality& personality) {
    unsigned long domain = PER_LINUX;
    if (personality.domain == "LINUX32") {
        domain = PER_LINUX32;
    } else if (personality.domain != "LINUX") {
        return fail(
            Code::kInvalidArgument,
            "personality domain \"" + base::printable(personality.domain) + "\" is not known");
    }
    if (!personality.flags.empty())
        return fail(Code::kInvalidArgument, "personality flags: none are supported");
    if (::personality(domain) < 0) return failErrno("set personality");
    return {};
}

}  // namespace arca::vmexec
