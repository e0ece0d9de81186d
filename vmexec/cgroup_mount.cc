#include "vmexec/cgroup_mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/strings.h"
#include "vmexec/mount_target.h"

namespace arca::vmexec {

using base::attachMount;
using base::cloneTree;
using base::Code;
using base::Depth;
using base::fail;
using base::failErrno;
using base::makeFilesystem;
using base::MountAttributes;
using base::Result;
using base::setMountAttributes;
using base::UniqueFd;
using spec::MountOptions;

namespace {

constexpr std::string_view kCgroupRoot = "/sys/fs/cgroup/";
constexpr uint64_t kDefaultAttributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

struct Hierarchy {
    std::string directory;             // name below /sys/fs/cgroup: "memory", "cpu,cpuacct"
    std::string path;                  // the container's own cgroup, absolute on this host
    std::string type;                  // "cgroup", or "cgroup2" for a hybrid host's unified tree
    std::vector<std::string> data;     // what mount(8) would be given after -o
    std::vector<std::string> aliases;  // controllers that are to be symlinks to `directory`
};

// A line of /proc/self/cgroup.
struct Membership {
    std::vector<std::string_view> controllers;
    std::string_view path;
};

// "9:name=systemd:/x" and "4:cpu,cpuacct:/y" are found by the name of the directory.
Membership membershipIn(std::string_view proc_cgroup, std::string_view directory) {
    for (const std::string_view line : base::split(proc_cgroup, '\n')) {
        const auto fields = base::split(line, ':');
        if (fields.size() < 3 || fields[1].empty()) continue;
        std::string_view name = fields[1];
        if (name.starts_with("name=")) name.remove_prefix(5);
        auto controllers = base::split(fields[1], ',');
        if (name == directory) return {controllers, fields[2]};
        // Co-mounted controllers may be listed in another order than the directory's name.
        for (const std::string_view controller : controllers) {
            if (controllers.size() > 1 && base::split(directory, ',').front() == controller)
                return {controllers, fields[2]};
        }
    }
    return {};
}

// The hierarchies of a v1 or hybrid host that the container is in.
Result<std::vector<Hierarchy>> findHierarchies(const spec::Plan& plan) {
    ARCA_TRY(const std::string proc_cgroup, base::readFile("/proc/self/cgroup"));
    std::vector<Hierarchy> found;
    for (const std::string& path : plan.cgroup_paths) {
        if (!path.starts_with(kCgroupRoot)) continue;
        const std::string_view rest = std::string_view(path).substr(kCgroupRoot.size());
        Hierarchy hierarchy;
        hierarchy.directory = rest.substr(0, rest.find('/'));
        hierarchy.path = path;
        if (hierarchy.directory == "unified") {
            hierarchy.type = "cgroup2";
            found.push_back(std::move(hierarchy));
            continue;
        }
        hierarchy.type = "cgroup";
        const Membership membership = membershipIn(proc_cgroup, hierarchy.directory);
        // Only the mount point is known of a hierarchy in which the container has no cgroup of its
        // own: what it is in is the caller's.
        if (rest == hierarchy.directory && membership.path != "/")
            hierarchy.path += membership.path;
        for (const std::string_view controller : membership.controllers) {
            if (controller.starts_with("name=")) hierarchy.data.emplace_back("none");
            hierarchy.data.emplace_back(controller);
            if (controller != hierarchy.directory && !controller.starts_with("name="))
                hierarchy.aliases.emplace_back(controller);
        }
        found.push_back(std::move(hierarchy));
    }
    return found;
}

Result<UniqueFd> bindOwn(const std::string& path) {
    ARCA_TRY(UniqueFd tree, cloneTree(AT_FDCWD, path, Depth::kTop));
    // So that a mount made below it later does not show up on the host.
    ARCA_CHECK(setMountAttributes(tree.get(), {.propagation = MS_SLAVE}, Depth::kTop));
    return tree;
}

Result<UniqueFd> openHierarchy(const Hierarchy& hierarchy, const MountOptions& options,
                               bool new_namespace) {
    if (new_namespace) {
        auto mounted = makeFilesystem({.type = hierarchy.type,
                                       .source = hierarchy.type,
                                       .superblock_flags = options.superblock_flags,
                                       .attributes = kDefaultAttributes | options.top.set,
                                       .data = hierarchy.data});
        if (mounted || mounted.error().sysErrno() != EPERM) return mounted;
    }
    ARCA_TRY(UniqueFd tree, bindOwn(hierarchy.path));
    MountAttributes attributes = options.top;
    attributes.set |= kDefaultAttributes & ~attributes.clear;
    ARCA_CHECK(setMountAttributes(tree.get(), attributes, Depth::kTop));
    return tree;
}

Result<> mountHierarchy(const Hierarchy& hierarchy, const MountOptions& options, int dir_fd,
                        bool new_namespace) {
    if (::mkdirat(dir_fd, hierarchy.directory.c_str(), 0755) != 0 && errno != EEXIST)
        return failErrno("mkdir " + hierarchy.directory);
    ARCA_TRY(const UniqueFd target,
             base::openAt(dir_fd, hierarchy.directory, O_PATH | O_DIRECTORY | O_NOFOLLOW));
    ARCA_TRY(const UniqueFd tree, openHierarchy(hierarchy, options, new_namespace));
    ARCA_CHECK(attachMount(tree.get(), target.get()));
    for (const std::string& alias : hierarchy.aliases) {
        if (::symlinkat(hierarchy.directory.c_str(), dir_fd, alias.c_str()) != 0 && errno != EEXIST)
            return failErrno("symlink " + alias);
    }
    return {};
}

// A tmpfs, and in it each hierarchy.
Result<> mountV1(MountContext& context, const MountTarget& target, const MountOptions& options,
                 bool new_namespace) {
    ARCA_TRY(const std::vector<Hierarchy> hierarchies, findHierarchies(context.plan));
    ARCA_TRY(UniqueFd top, makeFilesystem({.type = "tmpfs",
                                           .source = "tmpfs",
                                           .attributes = kDefaultAttributes,
                                           .data = {"mode=755"}}));
    ARCA_CHECK(attachMount(top.get(), target.fd.get()));
    for (const Hierarchy& hierarchy : hierarchies) {
        auto done = mountHierarchy(hierarchy, options, top.get(), new_namespace);
        if (!done) return fail(std::move(done).error().withContext(hierarchy.directory));
    }
    return finishMount(context, std::move(top), options, true);
}

Result<> mountV2(MountContext& context, const spec::Mount& mount, const MountTarget& target,
                 const MountOptions& options, bool new_namespace) {
    Result<UniqueFd> tree = fail(Code::kPermissionDenied, "", EPERM);
    if (new_namespace) {
        tree = makeFilesystem({.type = "cgroup2",
                               .source = mount.source.empty() ? "cgroup" : mount.source,
                               .superblock_flags = options.superblock_flags,
                               .attributes = options.top.set,
                               .data = options.data});
    }
    MountOptions wanted = options;
    if (!tree && tree.error().sysErrno() == EPERM) {
        const std::string own = context.plan.cgroup_paths.empty()
                                    ? std::string(kCgroupRoot)
                                    : context.plan.cgroup_paths.front();
        tree = bindOwn(own);
        wanted.bind = true;
    }
    if (!tree) return fail(std::move(tree).error());
    ARCA_CHECK(attachMount(tree->get(), target.fd.get()));
    return finishMount(context, std::move(*tree), wanted, false);
}

}  // namespace

Result<> mountCgroups(MountContext& context, const spec::Mount& mount,
                      const MountOptions& options) {
    ARCA_TRY(const MountTarget target,
             openMountTarget(context.root_fd, mount.destination, TargetKind::kDirectory));
    ARCA_CHECK(checkProcTarget(target, mount.type, -1));
    const bool new_namespace =
        context.plan.spec.linux.findNamespace(spec::NamespaceType::kCgroup) != nullptr;
    if (context.plan.unified_cgroup) return mountV2(context, mount, target, options, new_namespace);
    return mountV1(context, target, options, new_namespace);
}

}  // namespace arca::vmexec
