// cgroup v1: one hierarchy a controller (or several), name=systemd, and the v2 tree of a hybrid
// host, in all of which a container has the same path.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "vminitd/cgroup_common.h"
#include "vminitd/cgroup_settings.h"
#include "vminitd/device_rules.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

bool hasController(std::string_view controllers, std::string_view wanted) {
    const auto all = base::split(controllers, ',');
    return std::find(all.begin(), all.end(), wanted) != all.end();
}

const CgroupDir* findDir(const CgroupDirs& dirs, std::string_view controller) {
    for (const CgroupDir& dir : dirs) {
        if (hasController(dir.controllers, controller)) return &dir;
    }
    return nullptr;
}

class V1Manager : public CgroupManager {
 public:
    V1Manager(std::vector<Hierarchy> hierarchies, CgroupFs& fs)
        : hierarchies_(std::move(hierarchies)), fs_(fs) {}

    [[nodiscard]] bool unified() const override { return false; }

    Result<CgroupDirs> locate(std::string_view cgroups_path) override {
        CgroupDirs dirs = directories(cgroups_path);
        for (CgroupDir& dir : dirs) {
            dir.made = !fs_.exists(dir.path);
            if (dir.made) continue;
            ARCA_CHECK(checkUnused(dir.path, fs_));
            if (!hasController(dir.controllers, "freezer")) continue;
            ARCA_CHECK(checkNotFrozen(dir.path, "freezer.state", fs_));
        }
        return dirs;
    }

    CgroupDirs directories(std::string_view cgroups_path) override {
        const std::string path = cleanCgroupPath(cgroups_path);
        CgroupDirs dirs;
        dirs.reserve(hierarchies_.size());
        for (const Hierarchy& hierarchy : hierarchies_) {
            dirs.push_back(CgroupDir{
                hierarchy.controllers,
                path == "/" ? hierarchy.mount_point : hierarchy.mount_point + path, false});
        }
        return dirs;
    }

    Result<> create(const CgroupDirs& dirs) override {
        for (const CgroupDir& dir : dirs) {
            const Hierarchy* hierarchy = hierarchyOf(dir);
            if (hierarchy == nullptr) continue;
            const bool cpuset = hasController(dir.controllers, "cpuset");
            if (!cpuset && dir.made) {
                // The parents are mostly there: one call instead of one a level.
                const auto made = fs_.makeDir(dir.path);
                if (made) continue;
            }
            const std::string path = dir.path.substr(hierarchy->mount_point.size());
            if (path.empty()) continue;
            std::string parent;
            const auto level = [&](const std::string& level_dir, bool) -> Result<> {
                const std::string above = std::exchange(parent, level_dir);
                if (!cpuset || above.empty()) return {};
                return inheritCpuset(above, level_dir);
            };
            ARCA_CHECK(makeCgroupTree(hierarchy->mount_point, path, fs_, level));
        }
        return {};
    }

    Result<> apply(const CgroupDirs& dirs, const spec::Resources& resources) override {
        ARCA_TRY(const std::vector<Setting> settings,
                 v1Settings(dirs, resources, Purpose::kCreate, fs_));
        ARCA_CHECK(applySettings(settings, Purpose::kCreate, fs_));
        return applyDevices(dirs, resources.devices);
    }

    Result<> update(const CgroupDirs& dirs, const spec::Resources& resources) override {
        // Everything that can be found wrong is found before the first write.
        ARCA_TRY(const std::vector<Setting> settings,
                 v1Settings(dirs, resources, Purpose::kUpdate, fs_));
        if (!resources.devices.empty()) {
            ARCA_CHECK(foldDeviceRules(resources.devices));
        }
        ARCA_CHECK(applySettings(settings, Purpose::kUpdate, fs_));
        if (resources.devices.empty()) return {};
        return applyDevices(dirs, resources.devices);
    }

    Result<> delegate(const CgroupDirs&, uid_t) override { return {}; }

    Result<> addProcess(const CgroupDirs& dirs, pid_t pid) override {
        const std::string text = std::to_string(pid);
        for (const CgroupDir& dir : dirs) ARCA_CHECK(fs_.write(dir.path + "/cgroup.procs", text));
        return {};
    }

    Result<> setFrozen(const CgroupDirs& dirs, bool frozen) override {
        const CgroupDir* freezer = findDir(dirs, "freezer");
        if (freezer == nullptr) {
            return fail(Code::kUnsupported, "cgroup controller freezer is not mounted");
        }
        return fs_.write(freezer->path + "/freezer.state", frozen ? "FROZEN" : "THAWED");
    }

    Result<FreezeState> freezeState(const CgroupDirs& dirs) override {
        const CgroupDir* freezer = findDir(dirs, "freezer");
        if (freezer == nullptr) return FreezeState::kThawed;
        ARCA_TRY(const std::string text, fs_.read(freezer->path + "/freezer.state"));
        if (text == "FROZEN") return FreezeState::kFrozen;
        if (text == "FREEZING") return FreezeState::kFreezing;
        return FreezeState::kThawed;
    }

    Result<> killAll(const CgroupDirs& dirs) override {
        std::vector<pid_t> pids;
        for (const CgroupDir& dir : dirs) {
            if (hierarchyOf(dir) == nullptr || !emptiedByUs(dirs, dir)) continue;
            ARCA_CHECK(collectProcesses(dir.path, fs_, pids));
        }
        std::sort(pids.begin(), pids.end());
        pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
        // Frozen, none can fork away between being listed and being hit. Not waited for: what is
        // born all the same is hit by the next round.
        const CgroupDir* freezer = findDir(dirs, "freezer");
        const bool can_freeze = freezer != nullptr && emptiedByUs(dirs, *freezer);
        if (can_freeze && pids.size() > 1) (void)setFrozen(dirs, true);
        Result<> result;
        for (const pid_t pid : pids) {
            auto sent = fs_.signal(pid, 9);
            if (!sent) result = std::move(sent);
        }
        // A frozen process takes the signal only once it is thawed.
        if (can_freeze && !pids.empty()) (void)setFrozen(dirs, false);
        return result;
    }

    Result<std::vector<pid_t>> processes(const CgroupDirs& dirs) override {
        std::vector<pid_t> pids;
        const CgroupDir* dir = findDir(dirs, "freezer");
        if (dir == nullptr && !dirs.empty()) dir = &dirs.front();
        if (dir == nullptr) return pids;
        ARCA_CHECK(collectProcesses(dir->path, fs_, pids));
        std::sort(pids.begin(), pids.end());
        pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
        return pids;
    }

    Result<bool> remove(const CgroupDirs& dirs) override {
        bool all = true;
        for (const CgroupDir& dir : dirs) {
            if (!dir.made || hierarchyOf(dir) == nullptr) continue;
            ARCA_TRY(const bool gone, removeCgroupTree(dir.path, fs_));
            all = all && gone;
        }
        return all;
    }

    Result<CgroupDirs> currentOf(pid_t pid, const CgroupDirs& dirs) override {
        return currentDirs(pid, dirs, hierarchies_, fs_);
    }

 private:
    // Also the guard against records that name directories outside of any hierarchy.
    [[nodiscard]] const Hierarchy* hierarchyOf(const CgroupDir& dir) const {
        for (const Hierarchy& hierarchy : hierarchies_) {
            if (hierarchy.controllers == dir.controllers &&
                (dir.path == hierarchy.mount_point ||
                 dir.path.rfind(hierarchy.mount_point + "/", 0) == 0)) {
                return &hierarchy;
            }
        }
        return nullptr;
    }

    // A cpuset cgroup takes no process while its lists are empty.
    Result<> inheritCpuset(const std::string& parent, const std::string& child) {
        for (const char* file : {"/cpuset.cpus", "/cpuset.mems"}) {
            ARCA_TRY(const std::string own, fs_.read(child + file));
            if (!base::trim(own).empty()) continue;
            ARCA_TRY(const std::string inherited, fs_.read(parent + file));
            ARCA_CHECK(fs_.write(child + file, inherited));
        }
        return {};
    }

    Result<> applyDevices(const CgroupDirs& dirs, const std::vector<spec::DeviceRule>& rules) {
        const CgroupDir* dir = findDir(dirs, "devices");
        if (dir == nullptr) {
            if (rules.empty()) return {};
            return fail(Code::kUnsupported,
                        "cgroup controller devices is not mounted, but "
                        "linux.resources.devices was asked for");
        }
        ARCA_TRY(const DevicePolicy policy, foldDeviceRules(rules));
        const std::string allow = dir->path + "/devices.allow";
        const std::string deny = dir->path + "/devices.deny";
        std::vector<std::string> lines;
        lines.reserve(policy.exceptions.size());
        for (const DeviceException& exception : policy.exceptions) {
            lines.push_back(deviceLine(exception));
        }
        ARCA_CHECK(fs_.write(policy.allow_by_default ? allow : deny, "a"));
        if (lines.empty()) return {};
        return fs_.writeEach(policy.allow_by_default ? deny : allow, lines);
    }

    std::vector<Hierarchy> hierarchies_;
    CgroupFs& fs_;
};

}  // namespace

Result<std::unique_ptr<CgroupManager>> makeV1Manager(std::vector<Hierarchy> hierarchies,
                                                     CgroupFs& fs) {
    return std::unique_ptr<CgroupManager>(new V1Manager(std::move(hierarchies), fs));
}

}  // namespace arca::vminitd
