#include "vminitd/rootless_cgroups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/process.h"
#include "base/strings.h"

namespace arca::vminitd {
namespace {

using base::fail;
using base::Result;

bool isRefusal(const base::Error& error) {
    const int number = error.sysErrno();
    return number == EACCES || number == EPERM || number == EROFS;
}

void drop(CgroupManager& cgroups, const CgroupDir& dir, const base::Error& why) {
    base::log::debug("without cgroup path=" + dir.path + " reason=" + why.message());
    if (dir.made) (void)cgroups.remove({dir});
}

// Does `step` for each directory on its own and drops those it is refused for.
template <typename Step>
Result<> keepWhatWorks(CgroupManager& cgroups, CgroupDirs& dirs, const Step& step) {
    CgroupDirs kept;
    for (const CgroupDir& dir : dirs) {
        const Result<> done = step(dir);
        if (done) {
            kept.push_back(dir);
        } else if (isRefusal(done.error())) {
            drop(cgroups, dir, done.error());
        } else {
            return done;
        }
    }
    dirs = std::move(kept);
    return {};
}

}  // namespace

bool runsRootless() {
    return ::geteuid() != 0 || base::inUserNamespace();
}

Result<> makeRootlessCgroups(CgroupManager& cgroups, CgroupDirs& dirs,
                             const spec::Resources& resources) {
    const size_t wanted = dirs.size();
    ARCA_CHECK(
        keepWhatWorks(cgroups, dirs, [&](const CgroupDir& dir) { return cgroups.create({dir}); }));
    spec::Resources limits = resources;
    limits.devices.clear();
    // An update sets limits alone; device rules, which no user namespace gives the privilege for,
    // come after and may fail.
    auto limited = cgroups.update(dirs, limits);
    if (limited && dirs.empty() && limits.aLimit() != nullptr) {
        limited = fail(base::Code::kFailedPrecondition, "linux.resources");
    }
    if (!limited && dirs.size() < wanted) {
        return fail(std::move(limited).error().withContext(
            "cannot set limits: container could not join or create cgroup"));
    }
    ARCA_CHECK(std::move(limited));
    if (dirs.empty()) return {};
    spec::Resources devices;
    devices.devices = resources.devices;
    const auto guarded = cgroups.apply(dirs, devices);
    if (!guarded) base::log::debug("without device rules reason=" + guarded.error().message());
    return {};
}

Result<> addRootlessProcess(CgroupManager& cgroups, CgroupDirs& dirs, pid_t pid) {
    return keepWhatWorks(cgroups, dirs,
                         [&](const CgroupDir& dir) { return cgroups.addProcess({dir}, pid); });
}

Result<std::vector<pid_t>> processesBeside(pid_t init) {
    const auto namespaceOf = [](const std::string& pid, struct stat& st) {
        return ::stat(("/proc/" + pid + "/ns/pid").c_str(), &st) == 0;
    };
    struct stat wanted {};
    if (!namespaceOf(std::to_string(init), wanted)) {
        return base::failErrno("stat the container's pid namespace");
    }
    ARCA_TRY(const std::vector<std::string> names, base::listDir(AT_FDCWD, "/proc"));
    std::vector<pid_t> pids;
    for (const std::string& name : names) {
        const auto pid = base::parseNumber<pid_t>(name);
        struct stat st {};
        // What may not be looked into is another user's, and so no process of ours.
        if (!pid || !namespaceOf(name, st)) continue;
        if (st.st_dev == wanted.st_dev && st.st_ino == wanted.st_ino) pids.push_back(*pid);
    }
    std::sort(pids.begin(), pids.end());
    return pids;
}

}  // namespace arca::vminitd
