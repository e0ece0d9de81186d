#include "vminitd/oci_alterations.h"

#include <fcntl.h>

#include <algorithm>
#include <string_view>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "vminitd/users.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

constexpr char kDefaultPath[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr std::string_view kGroupAdd = "ARCA_GROUP_ADD=";

bool hasVariable(const std::vector<std::string>& env, std::string_view prefix) {
    return std::any_of(env.begin(), env.end(), [&](const std::string& entry) {
        return std::string_view(entry).substr(0, prefix.size()) == prefix;
    });
}

// The file of the agent's own file system that the configuration binds over `path`, or "".
std::string boundOver(const spec::Spec& spec, std::string_view path) {
    std::string source;
    for (const spec::Mount& mount : spec.mounts) {
        if (base::cleanPath(mount.destination) == path && mount.source.substr(0, 1) == "/") {
            source = mount.source;
        }
    }
    return source;
}

void addUnique(std::vector<uint32_t>& list, uint32_t value) {
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

Result<> resolveIdentity(spec::User& user, UserFiles& files) {
    if (user.username.empty()) return {};
    ARCA_TRY(const ResolvedUser resolved, resolveUser(user.username, user.gid, files));
    user.uid = resolved.uid;
    user.gid = resolved.gid;
    std::vector<uint32_t> groups;
    for (const uint32_t gid : user.additionalGids) addUnique(groups, gid);
    for (const uint32_t gid : resolved.supplementary) addUnique(groups, gid);
    addUnique(groups, user.gid);
    user.additionalGids = std::move(groups);
    return {};
}

// ARCA_GROUP_ADD=a,b: numbers or names; unknown names are passed over. The variable goes.
Result<> addArcaGroups(spec::Process& process, UserFiles& files) {
    for (const std::string& entry : process.env) {
        const std::string_view view = entry;
        if (view.substr(0, kGroupAdd.size()) != kGroupAdd) continue;
        for (const std::string_view name : base::split(view.substr(kGroupAdd.size()), ',')) {
            if (name.empty()) continue;
            ARCA_TRY(std::optional<uint32_t> gid, parseId(name));
            if (!gid) {
                ARCA_TRY(const std::string_view text, files.group());
                forEachGroupLine(text, [&](const GroupEntry& group) {
                    if (group.name == name) gid = group.gid;
                    return !gid;
                });
            }
            if (gid) {
                addUnique(process.user.additionalGids, *gid);
            } else {
                base::log::warning("group in ARCA_GROUP_ADD is not in the container's " +
                                   files.groupName());
            }
        }
    }
    std::erase_if(process.env, [](const std::string& entry) {
        return std::string_view(entry).substr(0, kGroupAdd.size()) == kGroupAdd;
    });
    return {};
}

void completeEnvironment(spec::Process& process, UserFiles& files) {
    if (!hasVariable(process.env, "PATH=")) process.env.emplace_back(kDefaultPath);
    std::erase(process.env, "HOME=");
    if (!hasVariable(process.env, "HOME=")) {
        process.env.push_back("HOME=" + homeOf(process.user.uid, files));
    }
    if (process.terminal && !hasVariable(process.env, "TERM=")) {
        process.env.emplace_back("TERM=xterm");
    }
}

}  // namespace

Result<> applyOciAlterations(spec::Spec& spec, const AlterationContext& context) {
    if (!spec.process && !context.process_may_be_missing) {
        return fail(Code::kInvalidArgument, base::texts::kProcessMissing);
    }
    if (!spec.root || spec.root->path.empty()) {
        return fail(Code::kInvalidArgument, "root property must not be empty");
    }
    if (spec.root->path.front() != '/') {
        if (context.bundle.empty()) {
            return fail(Code::kInvalidArgument,
                        "root.path " + base::printable(spec.root->path) + ": must be absolute");
        }
        spec.root->path = base::absolutePath(context.bundle, spec.root->path);
    }
    std::string& cgroup = spec.linux.cgroupsPath;
    if (cgroup.empty()) {
        cgroup = context.cgroup_prefix + "/" + context.process_id;
    } else if (cgroup.front() != '/') {
        cgroup.insert(0, "/");
    }
    if (!spec.process) return {};
    spec::Process& process = *spec.process;
    if (process.cwd.empty()) process.cwd = "/";

    UniqueFd opened;
    int root_fd = context.root_fd;
    if (root_fd < 0) {
        auto root = base::openAt(AT_FDCWD, spec.root->path, O_PATH | O_DIRECTORY);
        if (!root) return fail(std::move(root).error().withContext("root.path"));
        opened = std::move(*root);
        root_fd = opened.get();
    }
    const bool through_mounts = context.root_fd >= 0;
    UserFiles files(root_fd, through_mounts ? "" : boundOver(spec, "/etc/passwd"),
                    through_mounts ? "" : boundOver(spec, "/etc/group"));
    ARCA_CHECK(resolveIdentity(process.user, files));
    completeEnvironment(process, files);
    if (context.arca_group_add) ARCA_CHECK(addArcaGroups(process, files));
    return {};
}

}  // namespace arca::vminitd
