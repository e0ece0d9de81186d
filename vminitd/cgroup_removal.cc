#include "vminitd/cgroup_removal.h"

#include <memory>
#include <utility>

namespace arca::vminitd {

using base::Result;

void removeCgroup(EventLoop& loop, CgroupManager& cgroups, const CgroupDirs& cgroup,
                  std::chrono::milliseconds limit, std::function<void(Result<bool>)> done) {
    auto last = std::make_shared<Result<bool>>(false);
    const auto attempt = [&cgroups, cgroup, last] {
        *last = cgroups.remove(cgroup);
        if (!*last) return false;
        if (**last) return true;
        const auto killed = cgroups.killAll(cgroup);
        if (!killed) *last = base::fail(killed.error());
        return false;
    };
    retryUntil(loop, limit, attempt,
               [last, done = std::move(done)](bool /*gone*/) { done(std::move(*last)); });
}

}  // namespace arca::vminitd
