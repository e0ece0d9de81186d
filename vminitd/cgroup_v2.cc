// cgroup v2: one tree; controllers are switched on from the root down to a container's parent.
#include <algorithm>
#include <cerrno>

#include "base/strings.h"
#include "vminitd/cgroup_common.h"
#include "vminitd/cgroup_settings.h"
#include "vminitd/device_bpf.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

class V2Manager : public CgroupManager {
 public:
    V2Manager(Hierarchy hierarchy, CgroupFs& fs) : hierarchy_(std::move(hierarchy)), fs_(fs) {}

    [[nodiscard]] bool unified() const override { return true; }

    Result<CgroupDirs> locate(std::string_view cgroups_path) override {
        CgroupDirs dirs = directories(cgroups_path);
        for (CgroupDir& dir : dirs) {
            dir.made = !fs_.exists(dir.path);
            if (dir.made) continue;
            ARCA_CHECK(checkUnused(dir.path, fs_));
            ARCA_CHECK(checkNotFrozen(dir.path, "cgroup.freeze", fs_));
        }
        return dirs;
    }

    CgroupDirs directories(std::string_view cgroups_path) override {
        const std::string path = cleanCgroupPath(cgroups_path);
        return {CgroupDir{"", path == "/" ? hierarchy_.mount_point : hierarchy_.mount_point + path,
                          false}};
    }

    Result<> create(const CgroupDirs& dirs) override {
        for (const CgroupDir& dir : dirs) {
            if (!ours(dir)) continue;
            const std::string path = dir.path.substr(hierarchy_.mount_point.size());
            if (path.empty()) continue;
            ARCA_CHECK(makeCgroupTree(hierarchy_.mount_point, path, fs_,
                                      [&](const std::string& level, bool is_leaf) -> Result<> {
                                          if (!is_leaf) enableControllers(level);
                                          return {};
                                      }));
        }
        return {};
    }

    Result<> apply(const CgroupDirs& dirs, const spec::Resources& resources) override {
        for (const CgroupDir& dir : dirs) {
            ARCA_TRY(const std::vector<Setting> settings,
                     v2Settings(dir.path, resources, Purpose::kCreate, fs_));
            ARCA_CHECK(applySettings(settings, Purpose::kCreate, fs_));
            ARCA_TRY(const DevicePolicy policy, foldDeviceRules(resources.devices));
            ARCA_CHECK(attachDevicePolicy(dir.path, policy));
        }
        return {};
    }

    Result<> update(const CgroupDirs& dirs, const spec::Resources& resources) override {
        for (const CgroupDir& dir : dirs) {
            ARCA_TRY(const std::vector<Setting> settings,
                     v2Settings(dir.path, resources, Purpose::kUpdate, fs_));
            ARCA_TRY(const DevicePolicy policy, foldDeviceRules(resources.devices));
            ARCA_CHECK(applySettings(settings, Purpose::kUpdate, fs_));
            if (!resources.devices.empty()) ARCA_CHECK(attachDevicePolicy(dir.path, policy));
        }
        return {};
    }

    Result<> delegate(const CgroupDirs& dirs, uid_t owner) override {
        // The list of kernels that do not tell (before Linux 4.15) is part of cgroup-v2's document.
        auto names = fs_.read("/sys/kernel/cgroup/delegate");
        const std::string list =
            names ? *names : "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";
        for (const CgroupDir& dir : dirs) {
            ARCA_CHECK(fs_.setOwner(dir.path, owner));
            for (const std::string_view name : base::split(list, '\n')) {
                const std::string path = dir.path + "/" + std::string(name);
                // The list is of all that this kernel knows; what no controller offers here is not.
                if (!name.empty() && fs_.exists(path)) ARCA_CHECK(fs_.setOwner(path, owner));
            }
        }
        return {};
    }

    Result<> addProcess(const CgroupDirs& dirs, pid_t pid) override {
        for (const CgroupDir& dir : dirs) {
            ARCA_CHECK(fs_.write(dir.path + "/cgroup.procs", std::to_string(pid)));
        }
        return {};
    }

    Result<> setFrozen(const CgroupDirs& dirs, bool frozen) override {
        for (const CgroupDir& dir : dirs) {
            ARCA_CHECK(fs_.write(dir.path + "/cgroup.freeze", frozen ? "1" : "0"));
        }
        return {};
    }

    Result<FreezeState> freezeState(const CgroupDirs& dirs) override {
        for (const CgroupDir& dir : dirs) {
            ARCA_TRY(const std::string events, fs_.read(dir.path + "/cgroup.events"));
            const bool reached = events.find("frozen 1") != std::string::npos;
            ARCA_TRY(const std::string wanted, fs_.read(dir.path + "/cgroup.freeze"));
            if (base::trim(wanted) != "1") return FreezeState::kThawed;
            return reached ? FreezeState::kFrozen : FreezeState::kFreezing;
        }
        return FreezeState::kThawed;
    }

    Result<> killAll(const CgroupDirs& dirs) override {
        for (const CgroupDir& dir : dirs) {
            if (!ours(dir)) continue;
            if (fs_.write(dir.path + "/cgroup.kill", "1")) continue;
            // Before Linux 5.14. A frozen process of v2 does take SIGKILL.
            std::vector<pid_t> pids;
            ARCA_CHECK(collectProcesses(dir.path, fs_, pids));
            for (const pid_t pid : pids) ARCA_CHECK(fs_.signal(pid, 9));
        }
        return {};
    }

    Result<std::vector<pid_t>> processes(const CgroupDirs& dirs) override {
        std::vector<pid_t> pids;
        for (const CgroupDir& dir : dirs) {
            ARCA_CHECK(collectProcesses(dir.path, fs_, pids));
        }
        std::sort(pids.begin(), pids.end());
        pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
        return pids;
    }

    Result<bool> remove(const CgroupDirs& dirs) override {
        bool all = true;
        for (const CgroupDir& dir : dirs) {
            if (!dir.made || !ours(dir)) continue;
            ARCA_TRY(const bool gone, removeCgroupTree(dir.path, fs_));
            all = all && gone;
        }
        return all;
    }

    Result<CgroupDirs> currentOf(pid_t pid, const CgroupDirs& dirs) override {
        return currentDirs(pid, dirs, {hierarchy_}, fs_);
    }

 private:
    [[nodiscard]] bool ours(const CgroupDir& dir) const {
        return dir.controllers.empty() && (dir.path == hierarchy_.mount_point ||
                                           dir.path.rfind(hierarchy_.mount_point + "/", 0) == 0);
    }

    // As many as the kernel lets us: what is missing and needed shows when its file is written.
    void enableControllers(const std::string& dir) {
        const auto available = fs_.read(dir + "/cgroup.controllers");
        const auto enabled = fs_.read(dir + "/cgroup.subtree_control");
        if (!available || !enabled) return;
        const auto on = base::split(*enabled, ' ');
        std::vector<std::string> missing;
        std::string all;
        for (const std::string_view name : base::split(*available, ' ')) {
            if (name.empty() || std::find(on.begin(), on.end(), name) != on.end()) continue;
            missing.push_back("+" + std::string(name));
            all += (all.empty() ? "" : " ") + missing.back();
        }
        if (missing.empty() || fs_.write(dir + "/cgroup.subtree_control", all)) return;
        for (const std::string& one : missing) {
            (void)fs_.write(dir + "/cgroup.subtree_control", one);
        }
    }

    Hierarchy hierarchy_;
    CgroupFs& fs_;
};

}  // namespace

Result<std::unique_ptr<CgroupManager>> makeV2Manager(Hierarchy hierarchy, CgroupFs& fs) {
    return std::unique_ptr<CgroupManager>(new V2Manager(std::move(hierarchy), fs));
}

}  // namespace arca::vminitd
