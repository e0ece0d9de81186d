#include "vminitd/mounting.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/mount_api.h"
#include "base/strings.h"
#include "spec/mount_options.h"

namespace arca::vminitd {

using base::Code;
using base::Depth;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using spec::MountOptions;

namespace {

constexpr int kMountTries = 20;
constexpr std::chrono::milliseconds kMountPause{100};
constexpr std::chrono::milliseconds kUmountPause{10};

// The mount point by descriptor.
Result<UniqueFd> openTarget(const GuestPath& path, bool directory) {
    ARCA_TRY(base::PathInRoot at, path.resolve());
    if (at.fd.valid()) return std::move(at.fd);
    if (directory) {
        if (::mkdirat(at.parent.get(), at.name.c_str(), 0755) != 0 && errno != EEXIST) {
            return failErrno("mkdir " + path.text());
        }
    } else {
        const UniqueFd made(::openat(at.parent.get(), at.name.c_str(),
                                     O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
        if (!made.valid() && errno != EEXIST) return failErrno("make " + path.text());
    }
    return base::openAt(at.parent.get(), at.name, O_PATH | O_NOFOLLOW);
}

// What the options name beyond what a new file system has from its making.
Result<> finish(int mount_fd, const MountOptions& options) {
    if (options.bind) ARCA_CHECK(base::setMountAttributes(mount_fd, options.top, Depth::kTop));
    ARCA_CHECK(base::setMountAttributes(mount_fd, options.tree, Depth::kTree));
    for (const spec::PropagationChange& change : options.propagation) {
        ARCA_CHECK(base::setMountAttributes(mount_fd, {.propagation = change.type}, change.depth));
    }
    return {};
}

Result<> bindAt(const MountRequest& request, const MountOptions& options,
                const MountSurroundings& surroundings) {
    if (!options.data.empty()) {
        base::log::warning("mount at " + request.destination.text() +
                           ": a bind has no use for the option \"" +
                           base::printable(options.data.front()) + "\"");
    }
    ARCA_TRY(const GuestPath source, GuestPath::parse(request.source, surroundings.containers));
    ARCA_TRY(const UniqueFd from, source.open(O_PATH));
    ARCA_TRY(const UniqueFd tree, base::cloneTree(from.get(), "", options.bind_depth));
    struct stat st {};
    if (::fstat(tree.get(), &st) != 0) return failErrno("stat " + source.text());
    ARCA_TRY(const UniqueFd target, openTarget(request.destination, S_ISDIR(st.st_mode)));
    // Before it is attached: nobody sees it writable that is to be read-only. Propagation belongs
    // to attached mounts, whose peer group the target's mount decides.
    MountOptions quiet = options;
    quiet.propagation.clear();
    ARCA_CHECK(finish(tree.get(), quiet));
    ARCA_CHECK(base::attachMount(tree.get(), target.get()));
    quiet = MountOptions{};
    quiet.propagation = options.propagation;
    return finish(tree.get(), quiet);
}

Result<> filesystemAt(const MountRequest& request, const MountOptions& options) {
    const base::FilesystemRequest filesystem{.type = request.type,
                                             .source = request.source,
                                             .superblock_flags = options.superblock_flags,
                                             .attributes = options.top.set,
                                             .data = options.data};
    ARCA_TRY(const UniqueFd target, openTarget(request.destination, true));
    auto made = base::makeFilesystem(filesystem);
    if (!made && made.error().code() == Code::kUnsupported) {
        ARCA_TRY(const UniqueFd mounted, base::mountClassic(filesystem, target.get()));
        return finish(mounted.get(), options);
    }
    if (!made) return fail(std::move(made).error());
    ARCA_CHECK(base::attachMount(made->get(), target.get()));
    return finish(made->get(), options);
}

// The root of what is mounted at the destination.
Result<> changeMount(const MountRequest& request, const MountOptions& options) {
    ARCA_TRY(const UniqueFd target, request.destination.open(O_PATH));
    if (options.remount) {
        const std::string data = base::join(options.data, ",");
        unsigned long flags =
            MS_REMOUNT | options.superblock_flags | base::classicFlags(options.top.set);
        if (options.bind) flags |= MS_BIND;
        if (::mount(nullptr, base::fdPath(target.get()).c_str(), nullptr, flags,
                    data.empty() ? nullptr : data.c_str()) != 0) {
            return failErrno("remount");
        }
    }
    MountOptions rest = options;
    rest.bind = false;
    return finish(target.get(), rest);
}

bool makesFilesystem(const MountRequest& request) {
    return !request.type.empty() && request.type != "none" && request.type != "bind";
}

Result<> mountOnce(const MountRequest& request, const MountOptions& options,
                   const MountSurroundings& surroundings) {
    if (options.remount) return changeMount(request, options);
    if (options.bind) return bindAt(request, options, surroundings);
    if (makesFilesystem(request)) return filesystemAt(request, options);
    if (!options.propagation.empty()) return changeMount(request, options);
    return fail(Code::kInvalidArgument, "neither a type nor the option bind is given");
}

Result<> checkRequest(const MountRequest& request, const MountOptions& options) {
    for (const std::string* text : {&request.type, &request.source}) {
        if (text->find('\0') != std::string::npos) {
            return fail(Code::kInvalidArgument, "NUL byte in the type or the source");
        }
    }
    if (options.tmpcopyup) {
        return fail(Code::kUnsupported, "tmpcopyup is for the mounts of a container");
    }
    if (options.idmap != spec::IdmapOption::kNone) {
        return fail(Code::kUnsupported, "idmap is for the mounts of a container");
    }
    return {};
}

bool mayBePluggedIn(const MountRequest& request) {
    return request.type == "virtiofs" || request.source.starts_with("/dev/vd");
}

}  // namespace

Result<> mountAt(const MountRequest& request, const MountSurroundings& surroundings) {
    const std::string what =
        "mount " + base::printable(request.source.empty() ? request.type : request.source) +
        " at " + request.destination.text();
    auto parsed = spec::parseMountOptions(request.type, request.options);
    if (!parsed) return fail(std::move(parsed).error().withContext(what));
    auto checked = checkRequest(request, *parsed);
    if (!checked) return fail(std::move(checked).error().withContext(what));
    auto first = mountOnce(request, *parsed, surroundings);
    if (first) return {};
    if (mayBePluggedIn(request) && first.error().code() != Code::kInvalidArgument) {
        surroundings.rescan();
        for (int i = 0; i < kMountTries && surroundings.pause(kMountPause); ++i) {
            if (mountOnce(request, *parsed, surroundings)) return {};
        }
    }
    return fail(std::move(first).error().withContext(what));
}

void rescanPci() {
    const auto done = base::writeControlFile(AT_FDCWD, "/sys/bus/pci/rescan", "1");
    if (!done) base::log::debug(done.error().message());
}

namespace {

// A mount point inside a container's folder is named through its parent: a descriptor of itself
// would keep it busy.
struct MountName {
    UniqueFd parent;
    std::string path;
};
Result<MountName> nameOf(const GuestPath& path) {
    if (!path.confined() || path.name().empty()) return MountName{UniqueFd(), path.text()};
    if (path.name() == "..") return fail(Code::kInvalidArgument, path.text() + ": ends in '..'");
    ARCA_TRY(UniqueFd parent, path.parent().open(O_PATH | O_DIRECTORY));
    std::string name = base::fdPath(parent.get()) + "/" + path.name();
    return MountName{std::move(parent), std::move(name)};
}

}  // namespace

Result<> umountAt(const GuestPath& path, int flags, const Pause& pause) {
    constexpr int kKnownFlags = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
    if ((flags & ~kKnownFlags) != 0) {
        return fail(Code::kInvalidArgument, "unknown flags " + std::to_string(flags));
    }
    auto at = nameOf(path);
    if (!at) return fail(Code::kInvalidArgument, at.error().message(), at.error().sysErrno());
    if (path.confined()) flags |= UMOUNT_NOFOLLOW;
    const auto deadline = std::chrono::steady_clock::now() + kUmountLimit;
    while (::umount2(at->path.c_str(), flags) != 0) {
        const int why = errno;
        const std::string what = path.text() + ": " + base::errnoText(why);
        if (why != EBUSY) return fail(Code::kInvalidArgument, what, why);
        if (std::chrono::steady_clock::now() >= deadline || !pause(kUmountPause)) {
            return fail(Code::kFailedPrecondition, what, why);
        }
    }
    return {};
}

}  // namespace arca::vminitd
