#include "vmexec/mount_sources.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <cerrno>

#include "base/mount_api.h"
#include "base/strings.h"
#include "spec/mount_options.h"
#include "vmexec/id_maps.h"

namespace arca::vmexec {

using base::cloneTree;
using base::Code;
using base::Depth;
using base::fail;
using base::Result;
using base::setMountAttributes;
using base::UniqueFd;
using spec::IdmapOption;
using spec::MountOptions;
using spec::parseMountOptions;

namespace {

// The user namespace whose maps an idmapped mount takes: the mount's own, else the container's.
Result<UniqueFd> mappingOf(const spec::Plan& plan, const spec::Mount& mount,
                           const NamespacePlan& namespaces) {
    if (!mount.uidMappings.empty() && !mount.gidMappings.empty())
        return makeUserNamespace(mount.uidMappings, mount.gidMappings);
    if (namespaces.user.valid()) {
        UniqueFd copy(::fcntl(namespaces.user.get(), F_DUPFD_CLOEXEC, 3));
        if (copy.valid()) return copy;
        return base::failErrno("dup");
    }
    const spec::Linux& config = plan.spec.linux;
    if (!config.uidMappings.empty() && !config.gidMappings.empty())
        return makeUserNamespace(config.uidMappings, config.gidMappings);
    return fail(Code::kInvalidArgument,
                "an idmapped mount needs uidMappings and gidMappings, its own or the container's");
}

Result<UniqueFd> openOne(const spec::Plan& plan, const spec::Mount& mount,
                         const MountOptions& options, const NamespacePlan& namespaces) {
    ARCA_TRY(UniqueFd tree, cloneTree(AT_FDCWD, bindSource(plan, mount), options.bind_depth));
    // The copy belongs to the caller's peer groups: what the container mounts must not go back.
    ARCA_CHECK(setMountAttributes(tree.get(), {.propagation = MS_SLAVE}, Depth::kTree));
    const bool mapped = options.idmap != IdmapOption::kNone || !mount.uidMappings.empty();
    if (!mapped) return tree;
    ARCA_TRY(const UniqueFd userns, mappingOf(plan, mount, namespaces));
    const Depth depth = options.idmap == IdmapOption::kTree ? Depth::kTree : Depth::kTop;
    ARCA_CHECK(setMountAttributes(tree.get(), {.set = MOUNT_ATTR_IDMAP, .userns_fd = userns.get()},
                                  depth));
    return tree;
}

}  // namespace

std::string bindSource(const spec::Plan& plan, const spec::Mount& mount) {
    return base::absolutePath(plan.bundle, mount.source);
}

Result<MountSources> openMountSources(const spec::Plan& plan, const NamespacePlan& namespaces) {
    MountSources sources;
    const bool in_userns =
        (namespaces.create & cloneFlag(spec::NamespaceType::kUser)) != 0 || namespaces.user.valid();
    sources.mounts.resize(plan.spec.mounts.size());
    for (size_t i = 0; i < plan.spec.mounts.size(); ++i) {
        const spec::Mount& mount = plan.spec.mounts[i];
        ARCA_TRY(const MountOptions options, parseMountOptions(mount.type, mount.options));
        const bool mapped = options.idmap != IdmapOption::kNone || !mount.uidMappings.empty();
        const std::string what = "mount " + mount.source + " at " + mount.destination;
        if (mapped && !options.bind) {
            return fail(Code::kInvalidArgument,
                        what + ": id mappings are supported for bind mounts only");
        }
        if (!options.bind || options.remount || (!mapped && !in_userns)) continue;
        auto tree = openOne(plan, mount, options, namespaces);
        if (tree) {
            sources.mounts[i] = std::move(*tree);
        } else if (mapped || tree.error().sysErrno() != EPERM) {
            return fail(std::move(tree).error().withContext(what));
        }
    }
    if (in_userns && plan.spec.root) {
        const std::string path = base::absolutePath(plan.bundle, plan.spec.root->path);
        auto tree = cloneTree(AT_FDCWD, path, Depth::kTree);
        if (tree) {
            ARCA_CHECK(setMountAttributes(tree->get(), {.propagation = MS_SLAVE}, Depth::kTree));
            sources.rootfs = std::move(*tree);
        } else if (tree.error().sysErrno() != EPERM) {
            return fail(std::move(tree).error().withContext("rootfs"));
        }
    }
    return sources;
}

}  // namespace arca::vmexec
