#include "vmexec/mounts.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "base/files.h"
#include "base/strings.h"
#include "vmexec/cgroup_mount.h"
#include "vmexec/lsm.h"
#include "vmexec/mount_target.h"
#include "vmexec/tmpcopyup.h"

namespace arca::vmexec {

using base::attachMount;
using base::classicFlags;
using base::cloneTree;
using base::Code;
using base::Depth;
using base::fail;
using base::failErrno;
using base::FilesystemRequest;
using base::makeFilesystem;
using base::MountAttributes;
using base::mountClassic;
using base::Result;
using base::setMountAttributes;
using base::UniqueFd;
using spec::MountOptions;
using spec::parseMountOptions;
using spec::PropagationChange;

namespace {

Result<> makeBind(MountContext& context, const spec::Mount& mount, const MountOptions& options,
                  UniqueFd prepared) {
    // What is not an option of the mount itself is the file system's business, which a bind does
    // not make: other runtimes let the kernel drop it in silence, and bundles count on being
    // accepted.
    if (!options.data.empty()) {
        context.channel.warn("mount " + mount.destination +
                             ": a bind has no use for the option \"" +
                             base::printable(options.data.front()) + "\"");
    }
    UniqueFd tree = std::move(prepared);
    if (!tree.valid()) {
        ARCA_TRY(tree, cloneTree(AT_FDCWD, bindSource(context.plan, mount), options.bind_depth));
    }
    struct stat st {};
    if (::fstat(tree.get(), &st) != 0) return failErrno("stat");
    const bool is_dir = S_ISDIR(st.st_mode);
    ARCA_TRY(const MountTarget target,
             openMountTarget(context.root_fd, mount.destination,
                             is_dir ? TargetKind::kDirectory : TargetKind::kFile));
    ARCA_CHECK(checkProcTarget(target, "bind", tree.get()));
    ARCA_CHECK(attachMount(tree.get(), target.fd.get()));
    const bool is_dev = target.path == "/dev";
    if (is_dev) context.dev_is_bind = true;
    return finishMount(context, std::move(tree), options, is_dev);
}

// A user namespace's root may not mount what shows more than it may see already (sysfs without its
// own network namespace, proc without its own pid namespace); the host's mount is what it may see.
Result<UniqueFd> hostMount(const std::string& type) {
    ARCA_TRY(UniqueFd tree, cloneTree(AT_FDCWD, type == "proc" ? "/proc" : "/sys", Depth::kTree));
    ARCA_CHECK(setMountAttributes(tree.get(), {.propagation = MS_SLAVE}, Depth::kTree));
    return tree;
}

bool hasMode(const std::vector<std::string>& data) {
    return std::any_of(data.begin(), data.end(),
                       [](const std::string& item) { return item.starts_with("mode="); });
}

FilesystemRequest requestFor(const MountContext& context, const spec::Mount& mount,
                             const MountOptions& options, bool read_only_last) {
    FilesystemRequest request{.type = mount.type,
                              .source = mount.source,
                              .superblock_flags = options.superblock_flags,
                              .attributes = options.top.set,
                              .data = options.data};
    if (read_only_last) {
        request.superblock_flags &= ~static_cast<unsigned long>(MS_RDONLY);
        request.attributes &= ~static_cast<uint64_t>(MOUNT_ATTR_RDONLY);
    }
    const std::string& label = context.plan.spec.linux.mountLabel;
    if (!label.empty() && mount.type != "proc" && mount.type != "sysfs" && selinuxEnabled())
        request.data.push_back("context=\"" + label + "\"");
    return request;
}

Result<> makeFilesystemMount(MountContext& context, const spec::Mount& mount,
                             const MountOptions& options) {
    ARCA_TRY(const MountTarget target,
             openMountTarget(context.root_fd, mount.destination, TargetKind::kDirectory));
    ARCA_CHECK(checkProcTarget(target, mount.type, -1));
    if ((mount.type == "proc" || mount.type == "sysfs") &&
        target.path != base::cleanPath("/" + mount.destination))
        return fail(Code::kInvalidArgument, "must be mounted on ordinary directory");
    const bool read_only_last = mount.type == "tmpfs" || target.path == "/dev";
    FilesystemRequest request = requestFor(context, mount, options, read_only_last);
    if (mount.type == "tmpfs" && target.existed && !hasMode(request.data)) {
        struct stat st {};
        if (::fstat(target.fd.get(), &st) != 0) return failErrno("stat");
        std::array<char, 16> mode{};
        (void)std::snprintf(mode.data(), mode.size(), "mode=%04o", st.st_mode & 07777U);
        request.data.emplace_back(mode.data());
    }
    auto made = makeFilesystem(request);
    if (!made && context.in_userns && made.error().sysErrno() == EPERM &&
        (mount.type == "proc" || mount.type == "sysfs")) {
        ARCA_TRY(UniqueFd tree, hostMount(mount.type));
        ARCA_CHECK(attachMount(tree.get(), target.fd.get()));
        MountOptions as_bind = options;
        as_bind.bind = true;
        return finishMount(context, std::move(tree), as_bind, false);
    }
    if (!made && made.error().code() == Code::kUnsupported) {
        if (options.tmpcopyup) return fail(std::move(made).error().withContext("tmpcopyup"));
        ARCA_TRY(UniqueFd mounted, mountClassic(request, target.fd.get()));
        return finishMount(context, std::move(mounted), options, read_only_last);
    }
    if (!made) return fail(std::move(made).error());
    if (options.tmpcopyup) {
        auto copied = copyUp(target.fd.get(), made->get());
        if (!copied) return fail(std::move(copied).error().withContext("tmpcopyup"));
    }
    ARCA_CHECK(attachMount(made->get(), target.fd.get()));
    return finishMount(context, std::move(*made), options, read_only_last);
}

Result<> remount(MountContext& context, const spec::Mount& mount, const MountOptions& options) {
    ARCA_TRY(const UniqueFd target, base::openInRoot(context.root_fd, mount.destination, O_PATH));
    const std::string data = base::join(options.data, ",");
    unsigned long flags = MS_REMOUNT | options.superblock_flags | classicFlags(options.top.set);
    if (options.bind) flags |= MS_BIND;
    if (::mount(nullptr, base::fdPath(target.get()).c_str(), nullptr, flags,
                data.empty() ? nullptr : data.c_str()) != 0)
        return failErrno("remount");
    return {};
}

Result<> makeOne(MountContext& context, const spec::Mount& mount, UniqueFd prepared) {
    ARCA_TRY(MountOptions options, parseMountOptions(mount.type, mount.options));
    if (options.remount) return remount(context, mount, options);
    if (options.bind) return makeBind(context, mount, options, std::move(prepared));
    if (options.tmpcopyup && mount.type != "tmpfs")
        return fail(Code::kInvalidArgument, "tmpcopyup is for tmpfs only");
    if (mount.type.empty())
        return fail(Code::kInvalidArgument, "neither a type nor the option bind is given");
    if (mount.type == "cgroup") return mountCgroups(context, mount, options);
    return makeFilesystemMount(context, mount, options);
}

}  // namespace

Result<> finishMount(MountContext& context, UniqueFd mount, const MountOptions& options,
                     bool read_only_last) {
    MountAttributes top = options.top;
    MountAttributes tree = options.tree;
    bool sealed = false;
    Depth seal_depth = Depth::kTop;
    if (read_only_last && ((top.set | tree.set) & MOUNT_ATTR_RDONLY) != 0) {
        sealed = true;
        if ((tree.set & MOUNT_ATTR_RDONLY) != 0) seal_depth = Depth::kTree;
        top.set &= ~static_cast<uint64_t>(MOUNT_ATTR_RDONLY);
        tree.set &= ~static_cast<uint64_t>(MOUNT_ATTR_RDONLY);
    }
    // A new file system has these already; only binds differ.
    if (options.bind) ARCA_CHECK(setMountAttributes(mount.get(), top, Depth::kTop));
    ARCA_CHECK(setMountAttributes(mount.get(), tree, Depth::kTree));
    for (const PropagationChange& change : options.propagation) {
        ARCA_CHECK(setMountAttributes(mount.get(), {.propagation = change.type}, change.depth));
    }
    if (sealed) context.read_only_last.push_back({std::move(mount), seal_depth});
    return {};
}

Result<> makeMounts(MountContext& context) {
    const spec::Spec& spec = context.plan.spec;
    if (!spec.linux.mountLabel.empty() && !selinuxEnabled())
        context.channel.warn("mountLabel is ignored: SELinux is not enabled in this kernel");
    for (size_t i = 0; i < spec.mounts.size(); ++i) {
        const spec::Mount& mount = spec.mounts[i];
        UniqueFd prepared;
        if (i < context.sources.mounts.size()) prepared = std::move(context.sources.mounts[i]);
        auto made = makeOne(context, mount, std::move(prepared));
        if (!made) {
            const std::string& source = mount.source.empty() ? mount.type : mount.source;
            return fail(std::move(made).error().withContext(
                "mount " + base::printable(source) + " at " + base::printable(mount.destination)));
        }
    }
    return {};
}

Result<> sealMounts(MountContext& context) {
    for (const MountContext::Sealed& sealed : context.read_only_last) {
        auto done =
            setMountAttributes(sealed.mount.get(), {.set = MOUNT_ATTR_RDONLY}, sealed.depth);
        if (!done) return fail(std::move(done).error().withContext("make a mount read-only"));
    }
    context.read_only_last.clear();
    return {};
}

}  // namespace arca::vmexec
