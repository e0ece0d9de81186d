#include "vminitd/cgroup_common.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::split;

Result<> collectProcesses(const std::string& path, CgroupFs& fs, std::vector<pid_t>& pids,
                          int depth) {
    if (depth > kMaxCgroupDepth) return {};
    const auto text = fs.read(path + "/cgroup.procs");
    if (!text) {
        // ENODEV: the directory went while its file was open.
        const int why = text.error().sysErrno();
        if (why == ENOENT || why == ENODEV) return {};
        // A threaded cgroup has no cgroup.procs to read; its processes show in the domain's.
        if (why != EOPNOTSUPP) return fail(base::Error(text.error()));
    } else {
        for (const std::string_view line : split(*text, '\n')) {
            if (const auto pid = base::parseNumber<pid_t>(line)) pids.push_back(*pid);
        }
    }
    auto children = fs.childDirs(path);
    if (!children) return {};
    for (const std::string& child : *children) {
        ARCA_CHECK(collectProcesses(path + "/" + child, fs, pids, depth + 1));
    }
    return {};
}

Result<bool> removeCgroupTree(const std::string& path, CgroupFs& fs, int depth) {
    ARCA_TRY(const bool gone, fs.removeDir(path));
    if (gone) return true;
    if (depth > kMaxCgroupDepth) return false;
    auto children = fs.childDirs(path);
    if (!children || children->empty()) return false;
    bool all = true;
    for (const std::string& child : *children) {
        ARCA_TRY(const bool child_gone, removeCgroupTree(path + "/" + child, fs, depth + 1));
        all = all && child_gone;
    }
    if (!all) return false;
    return fs.removeDir(path);
}

Result<> makeCgroupTree(const std::string& mount_point, const std::string& path, CgroupFs& fs,
                        const std::function<Result<>(const std::string&, bool)>& level) {
    std::string dir = mount_point;
    const auto parts = split(std::string_view(path).substr(1), '/');
    ARCA_CHECK(level(dir, false));
    for (size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].empty()) continue;
        dir += "/" + std::string(parts[i]);
        ARCA_TRY([[maybe_unused]] const bool made, fs.makeDir(dir));
        ARCA_CHECK(level(dir, i + 1 == parts.size()));
    }
    return {};
}

std::optional<std::string> cgroupOfProcess(const std::string& proc_cgroup,
                                           const std::string& controllers) {
    for (const std::string_view line : split(proc_cgroup, '\n')) {
        const size_t first = line.find(':');
        const size_t second = line.find(':', first + 1);
        if (first == std::string_view::npos || second == std::string_view::npos) continue;
        if (line.substr(first + 1, second - first - 1) == controllers) {
            return std::string(line.substr(second + 1));
        }
    }
    return std::nullopt;
}

std::string directoryFor(const Hierarchy& hierarchy, const std::string& path_in_hierarchy) {
    std::string_view rest = path_in_hierarchy;
    if (hierarchy.root != "/" && rest.substr(0, hierarchy.root.size()) == hierarchy.root) {
        rest.remove_prefix(hierarchy.root.size());
    }
    const std::string clean = cleanCgroupPath(rest);
    return clean == "/" ? hierarchy.mount_point : hierarchy.mount_point + clean;
}

Result<> checkUnused(const std::string& path, CgroupFs& fs) {
    // Nested cgroups too: of a parent of others, its own list is often empty.
    std::vector<pid_t> pids;
    ARCA_CHECK(collectProcesses(path, fs, pids));
    if (pids.empty()) return {};
    return fail(Code::kFailedPrecondition,
                "container's cgroup is not empty: " + std::to_string(pids.size()) +
                    " process(es) found in " + path);
}

Result<> checkNotFrozen(const std::string& path, const char* file, CgroupFs& fs) {
    const auto state = fs.read(path + "/" + file);
    if (!state || *state == "0" || *state == "THAWED") return {};
    return fail(Code::kFailedPrecondition, "container's cgroup unexpectedly frozen: " + path);
}

bool emptiedByUs(const CgroupDirs& dirs, const CgroupDir& dir) {
    if (dir.made) return true;
    return std::none_of(dirs.begin(), dirs.end(), [](const CgroupDir& d) { return d.made; });
}

Result<CgroupDirs> currentDirs(pid_t pid, const CgroupDirs& dirs,
                               const std::vector<Hierarchy>& hierarchies, CgroupFs& fs) {
    ARCA_TRY(const std::string text, fs.read("/proc/" + std::to_string(pid) + "/cgroup"));
    CgroupDirs out = dirs;
    for (CgroupDir& dir : out) {
        const auto path = cgroupOfProcess(text, dir.controllers);
        if (!path) continue;
        for (const Hierarchy& hierarchy : hierarchies) {
            if (hierarchy.controllers != dir.controllers) continue;
            const std::string now = directoryFor(hierarchy, *path);
            // Only deeper ones count: a process that was moved away takes nothing with it.
            if (now.rfind(dir.path + "/", 0) == 0) dir.path = now;
        }
    }
    return out;
}

std::string cleanCgroupPath(std::string_view path) {
    return base::cleanPath("/" + std::string(path));
}

std::vector<Hierarchy> parseHierarchies(std::string_view mountinfo) {
    std::vector<Hierarchy> out;
    for (const std::string_view line : split(mountinfo, '\n')) {
        const auto fields = split(line, ' ');
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (fields.size() < 6 || fields.end() - dash < 4) continue;
        const std::string_view type = dash[1];
        Hierarchy found;
        found.root = fields[3];
        found.mount_point = fields[4];
        if (type == "cgroup") {
            // Of the super block's options, the controllers and the name are what identifies it.
            static constexpr std::string_view kOther[] = {
                "rw",    "ro",       "clone_children", "cpuset_v2_mode",       "favordynmods",
                "xattr", "noprefix", "nofavordynmods", "memory_recursiveprot", "nsdelegate"};
            for (const std::string_view option : split(dash[3], ',')) {
                if (std::find(std::begin(kOther), std::end(kOther), option) != std::end(kOther)) {
                    continue;
                }
                if (option.rfind("release_agent=", 0) == 0 || option.empty()) continue;
                if (!found.controllers.empty()) found.controllers += ',';
                found.controllers += option;
            }
            if (found.controllers.empty()) continue;
        } else if (type != "cgroup2") {
            continue;
        }
        // The same hierarchy mounted twice: the first one is used.
        const bool known = std::any_of(out.begin(), out.end(), [&](const Hierarchy& h) {
            return h.controllers == found.controllers;
        });
        if (!known) out.push_back(std::move(found));
    }
    return out;
}

Result<std::unique_ptr<CgroupManager>> makeCgroupManager(std::vector<Hierarchy> hierarchies,
                                                         CgroupFs& fs) {
    if (hierarchies.empty()) {
        return fail(Code::kFailedPrecondition, "no cgroup hierarchy is mounted");
    }
    if (hierarchies.size() == 1 && hierarchies.front().controllers.empty()) {
        return makeV2Manager(std::move(hierarchies.front()), fs);
    }
    return makeV1Manager(std::move(hierarchies), fs);
}

Result<std::unique_ptr<CgroupManager>> detectCgroups(CgroupFs& fs) {
    ARCA_TRY(const std::string mountinfo, base::readFile("/proc/self/mountinfo"));
    std::vector<Hierarchy> hierarchies = parseHierarchies(mountinfo);
    struct statfs info {};
    if (::statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC) {
        // A v2 host, whatever else is mounted elsewhere.
        for (Hierarchy& hierarchy : hierarchies) {
            if (!hierarchy.controllers.empty()) continue;
            hierarchy.mount_point = "/sys/fs/cgroup";
            return makeV2Manager(std::move(hierarchy), fs);
        }
    }
    return makeCgroupManager(std::move(hierarchies), fs);
}

void leaveCgroups(const std::vector<Hierarchy>& hierarchies, CgroupFs& fs) {
    const auto text = fs.read("/proc/self/cgroup");
    if (!text) return;
    for (const Hierarchy& hierarchy : hierarchies) {
        const auto path = cgroupOfProcess(*text, hierarchy.controllers);
        if (!path || *path == "/") continue;
        // Best effort: a delegated subtree may be all that we are allowed to touch.
        (void)fs.write(hierarchy.mount_point + "/cgroup.procs", std::to_string(::getpid()));
    }
}

}  // namespace arca::vminitd
