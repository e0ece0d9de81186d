#include "vmexec/device_nodes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>

#include "base/files.h"
#include "base/mount_api.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::attachMount;
using base::cloneTree;
using base::Code;
using base::Depth;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr uint32_t kDefaultMode = 0666;

struct Node {
    std::string path;
    mode_t type = S_IFCHR;
    dev_t device = 0;
    uint32_t mode = kDefaultMode;
    uint32_t uid = 0;
    uint32_t gid = 0;
};

Node nodeOf(const spec::Device& device) {
    Node node;
    node.path = base::cleanPath("/" + device.path);
    node.type = device.type == 'b' ? S_IFBLK : device.type == 'p' ? S_IFIFO : S_IFCHR;
    if (device.type != 'p')
        node.device =
            makedev(static_cast<unsigned>(device.major), static_cast<unsigned>(device.minor));
    node.mode = device.fileMode.value_or(kDefaultMode);
    node.uid = device.uid;
    node.gid = device.gid;
    return node;
}

bool isSame(const struct stat& st, const Node& node) {
    return (st.st_mode & S_IFMT) == node.type &&
           (node.type == S_IFIFO || st.st_rdev == node.device);
}

// The host's node of the same name, in place of one that may not be made.
Result<> bindNode(const Node& node, int dir_fd, const std::string& name) {
    ARCA_TRY(const UniqueFd source, base::openAt(AT_FDCWD, node.path, O_PATH | O_NOFOLLOW));
    struct stat st {};
    if (::fstat(source.get(), &st) != 0) return failErrno("stat " + node.path);
    if (!isSame(st, node))
        return fail(Code::kPermissionDenied, "may not be made, and the host's is another device",
                    EPERM);
    ARCA_TRY(const UniqueFd tree, cloneTree(source.get(), "", Depth::kTop));
    {
        ARCA_TRY(const UniqueFd made,
                 base::openAt(dir_fd, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644));
    }
    ARCA_TRY(const UniqueFd target, base::openAt(dir_fd, name, O_PATH | O_NOFOLLOW));
    return attachMount(tree.get(), target.get());
}

enum class IfDifferent { kError, kLeave };

// What is at the place already; false when nothing is.
Result<bool> checkExisting(const Node& node, int dir_fd, const std::string& name,
                           IfDifferent if_different) {
    struct stat st {};
    if (::fstatat(dir_fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) return false;
        return failErrno("stat");
    }
    if (isSame(st, node) || if_different == IfDifferent::kLeave) return true;
    return fail(Code::kAlreadyExists, "another file is there already", EEXIST);
}

// The directory of the nodes made last: most are in the same one.
struct LastDirectory {
    std::string path;
    UniqueFd fd;
};

Result<> makeNode(const Node& node, int root_fd, LastDirectory& dir_cache,
                  IfDifferent if_different) {
    const size_t slash = node.path.rfind('/');
    const std::string name = node.path.substr(slash + 1);
    if (name.empty()) return fail(Code::kInvalidArgument, "is no path of a device");
    if (const std::string path = node.path.substr(0, slash + 1); path != dir_cache.path) {
        ARCA_TRY(dir_cache.fd, base::makeDirsInRoot(root_fd, path, 0755));
        dir_cache.path = path;
    }
    const UniqueFd& dir = dir_cache.fd;
    // The umask is 0 here, so that the mode is the one asked for.
    if (::mknodat(dir.get(), name.c_str(), node.type | node.mode, node.device) != 0) {
        const int why = errno;
        if (why == EEXIST) {
            ARCA_CHECK(checkExisting(node, dir.get(), name, if_different));
            return {};
        }
        if (why != EPERM && why != EACCES) return failErrno("mknod", why);
        ARCA_TRY(const bool exists, checkExisting(node, dir.get(), name, if_different));
        if (exists) return {};
        return bindNode(node, dir.get(), name);
    }
    if ((node.uid != 0 || node.gid != 0) &&
        ::fchownat(dir.get(), name.c_str(), node.uid, node.gid, AT_SYMLINK_NOFOLLOW) != 0)
        return failErrno("chown");
    return {};
}

Result<> makeNamed(const Node& node, int root_fd, LastDirectory& dir, IfDifferent if_different) {
    auto made = makeNode(node, root_fd, dir, if_different);
    if (!made)
        return fail(std::move(made).error().withContext("device " + base::printable(node.path)));
    return {};
}

Result<> makeNodes(const DeviceContext& context) {
    LastDirectory dir;
    for (const spec::Device& device : context.spec.linux.devices) {
        const Node node = nodeOf(device);
        if (context.dev_is_bind && node.path.starts_with("/dev/")) {
            if (!base::openInRoot(context.root_fd, node.path, O_PATH))
                context.channel.warn("device " + node.path + " is not made: /dev is a bind mount");
            continue;
        }
        ARCA_CHECK(makeNamed(node, context.root_fd, dir, IfDifferent::kError));
    }
    if (context.dev_is_bind) return {};
    struct Default {
        const char* path;
        unsigned major;
        unsigned minor;
    };
    constexpr std::array kDefaults = {Default{"/dev/null", 1, 3},    Default{"/dev/zero", 1, 5},
                                      Default{"/dev/full", 1, 7},    Default{"/dev/random", 1, 8},
                                      Default{"/dev/urandom", 1, 9}, Default{"/dev/tty", 5, 0}};
    for (const Default& one : kDefaults) {
        Node node;
        node.path = one.path;
        node.device = makedev(one.major, one.minor);
        ARCA_CHECK(makeNamed(node, context.root_fd, dir, IfDifferent::kLeave));
    }
    return {};
}

// The text of symlink `name`, or nullopt when it is none.
std::optional<std::string> linkText(int dir_fd, const std::string& name) {
    std::array<char, 256> text{};
    const ssize_t n = ::readlinkat(dir_fd, name.c_str(), text.data(), text.size());
    if (n < 0) return std::nullopt;
    return std::string(text.data(), static_cast<size_t>(n));
}

// Each instance of devpts has its own multiplexer; the one of the image or of a tmpfs /dev has to
// lead there.
Result<> linkPtmx(int root_fd, int dev_fd) {
    if (linkText(dev_fd, "ptmx") == "pts/ptmx") return {};
    if (!base::openInRoot(root_fd, "/dev/pts/ptmx", O_PATH)) return {};  // no devpts, no link
    if (::unlinkat(dev_fd, "ptmx", 0) != 0 && errno != ENOENT) return failErrno("remove /dev/ptmx");
    if (::symlinkat("pts/ptmx", dev_fd, "ptmx") != 0) return failErrno("symlink /dev/ptmx");
    return {};
}

struct Link {
    const char* name;
    const char* text;
};
constexpr std::array kLinks = {Link{"fd", "/proc/self/fd"}, Link{"stdin", "/proc/self/fd/0"},
                               Link{"stdout", "/proc/self/fd/1"},
                               Link{"stderr", "/proc/self/fd/2"}};

void makeLink(const DeviceContext& context, int dev_fd, const Link& link) {
    if (::symlinkat(link.text, dev_fd, link.name) == 0) return;
    const std::string what = std::string("/dev/") + link.name;
    if (errno != EEXIST) {
        context.channel.warn(what + ": " + base::errnoText(errno));
        return;
    }
    const auto text = linkText(dev_fd, link.name);
    if (text == link.text || text == std::string_view(link.text).substr(1)) return;
    if (text && *text == std::string("fd/") + std::string(link.text).substr(14)) return;
    context.channel.warn(what + ": something else is there already and stays");
}

}  // namespace

Result<> makeDevices(const DeviceContext& context) {
    ARCA_CHECK(makeNodes(context));
    auto dev = base::openInRoot(context.root_fd, "/dev", O_PATH | O_DIRECTORY);
    if (!dev) return {};  // a rootfs without /dev: nothing to link
    if (!context.dev_is_bind) ARCA_CHECK(linkPtmx(context.root_fd, dev->get()));
    // Only if their source is there after all mounts: the specification's condition.
    if (base::openInRoot(context.root_fd, "/proc/self/fd", O_PATH | O_DIRECTORY)) {
        for (const Link& link : kLinks) makeLink(context, dev->get(), link);
    }
    if (base::openInRoot(context.root_fd, "/proc/kcore", O_PATH))
        makeLink(context, dev->get(), {"core", "/proc/kcore"});
    return {};
}

Result<UniqueFd> openRealDevNull() {
    ARCA_TRY(UniqueFd fd, base::openAt(AT_FDCWD, "/dev/null", O_PATH | O_NOFOLLOW));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return failErrno("stat /dev/null");
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        return fail(Code::kFailedPrecondition, "/dev/null: is not the null device");
    return fd;
}

}  // namespace arca::vmexec
