#include "spec/mount_options.h"

#include <algorithm>
#include <array>

#include "base/strings.h"
#include "spec/spec.h"

namespace arca::spec {

using base::Code;
using base::Depth;
using base::fail;
using base::MountAttributes;
using base::Result;

namespace {

enum class Kind {
    kNothing,  // accepted, no effect
    kSet,      // attribute on; superblock flag on
    kClear,    // attribute off; superblock flag off
    kAtime,    // one of the exclusive access-time attributes
    kSetTree,  // the same for the tree
    kClearTree,
    kAtimeTree,
    kPropagation,
    kPropagationTree,
    kBind,
    kBindTree,
    kRemount,
    kCopyUp,
    kIdmap,
    kIdmapTree,
};

struct Entry {
    std::string_view name;
    Kind kind;
    uint64_t attribute = 0;        // MOUNT_ATTR_*, or MS_* of a propagation
    unsigned long superblock = 0;  // MS_*
};

constexpr std::array kTable = {
    Entry{"async", Kind::kClear, 0, MS_SYNCHRONOUS},
    Entry{"atime", Kind::kAtime, MOUNT_ATTR_RELATIME},
    Entry{"bind", Kind::kBind},
    Entry{"defaults", Kind::kNothing},
    Entry{"dev", Kind::kClear, MOUNT_ATTR_NODEV},
    Entry{"diratime", Kind::kClear, MOUNT_ATTR_NODIRATIME},
    Entry{"dirsync", Kind::kSet, 0, MS_DIRSYNC},
    Entry{"exec", Kind::kClear, MOUNT_ATTR_NOEXEC},
    Entry{"idmap", Kind::kIdmap},
    Entry{"iversion", Kind::kSet, 0, MS_I_VERSION},
    Entry{"lazytime", Kind::kSet, 0, MS_LAZYTIME},
    Entry{"loud", Kind::kClear, 0, MS_SILENT},
    Entry{"mand", Kind::kSet, 0, MS_MANDLOCK},
    Entry{"noatime", Kind::kAtime, MOUNT_ATTR_NOATIME},
    Entry{"nodev", Kind::kSet, MOUNT_ATTR_NODEV},
    Entry{"nodiratime", Kind::kSet, MOUNT_ATTR_NODIRATIME},
    Entry{"noexec", Kind::kSet, MOUNT_ATTR_NOEXEC},
    Entry{"noiversion", Kind::kClear, 0, MS_I_VERSION},
    Entry{"nolazytime", Kind::kClear, 0, MS_LAZYTIME},
    Entry{"nomand", Kind::kClear, 0, MS_MANDLOCK},
    Entry{"norelatime", Kind::kAtime, MOUNT_ATTR_RELATIME},
    Entry{"nostrictatime", Kind::kAtime, MOUNT_ATTR_RELATIME},
    Entry{"nosuid", Kind::kSet, MOUNT_ATTR_NOSUID},
    Entry{"nosymfollow", Kind::kSet, MOUNT_ATTR_NOSYMFOLLOW},
    Entry{"private", Kind::kPropagation, MS_PRIVATE},
    Entry{"ratime", Kind::kAtimeTree, MOUNT_ATTR_RELATIME},
    Entry{"rbind", Kind::kBindTree},
    Entry{"rdev", Kind::kClearTree, MOUNT_ATTR_NODEV},
    Entry{"rdiratime", Kind::kClearTree, MOUNT_ATTR_NODIRATIME},
    Entry{"relatime", Kind::kAtime, MOUNT_ATTR_RELATIME},
    Entry{"remount", Kind::kRemount},
    Entry{"rexec", Kind::kClearTree, MOUNT_ATTR_NOEXEC},
    Entry{"ridmap", Kind::kIdmapTree},
    Entry{"rnoatime", Kind::kAtimeTree, MOUNT_ATTR_NOATIME},
    Entry{"rnodev", Kind::kSetTree, MOUNT_ATTR_NODEV},
    Entry{"rnodiratime", Kind::kSetTree, MOUNT_ATTR_NODIRATIME},
    Entry{"rnoexec", Kind::kSetTree, MOUNT_ATTR_NOEXEC},
    Entry{"rnorelatime", Kind::kAtimeTree, MOUNT_ATTR_RELATIME},
    Entry{"rnostrictatime", Kind::kAtimeTree, MOUNT_ATTR_RELATIME},
    Entry{"rnosuid", Kind::kSetTree, MOUNT_ATTR_NOSUID},
    Entry{"rnosymfollow", Kind::kSetTree, MOUNT_ATTR_NOSYMFOLLOW},
    Entry{"ro", Kind::kSet, MOUNT_ATTR_RDONLY, MS_RDONLY},
    Entry{"rprivate", Kind::kPropagationTree, MS_PRIVATE},
    Entry{"rrelatime", Kind::kAtimeTree, MOUNT_ATTR_RELATIME},
    Entry{"rro", Kind::kSetTree, MOUNT_ATTR_RDONLY},
    Entry{"rrw", Kind::kClearTree, MOUNT_ATTR_RDONLY},
    Entry{"rshared", Kind::kPropagationTree, MS_SHARED},
    Entry{"rslave", Kind::kPropagationTree, MS_SLAVE},
    Entry{"rstrictatime", Kind::kAtimeTree, MOUNT_ATTR_STRICTATIME},
    Entry{"rsuid", Kind::kClearTree, MOUNT_ATTR_NOSUID},
    Entry{"rsymfollow", Kind::kClearTree, MOUNT_ATTR_NOSYMFOLLOW},
    Entry{"runbindable", Kind::kPropagationTree, MS_UNBINDABLE},
    Entry{"rw", Kind::kClear, MOUNT_ATTR_RDONLY, MS_RDONLY},
    Entry{"shared", Kind::kPropagation, MS_SHARED},
    Entry{"silent", Kind::kSet, 0, MS_SILENT},
    Entry{"slave", Kind::kPropagation, MS_SLAVE},
    Entry{"strictatime", Kind::kAtime, MOUNT_ATTR_STRICTATIME},
    Entry{"suid", Kind::kClear, MOUNT_ATTR_NOSUID},
    Entry{"symfollow", Kind::kClear, MOUNT_ATTR_NOSYMFOLLOW},
    Entry{"sync", Kind::kSet, 0, MS_SYNCHRONOUS},
    Entry{"tmpcopyup", Kind::kCopyUp},
    Entry{"unbindable", Kind::kPropagation, MS_UNBINDABLE},
};
static_assert(std::is_sorted(kTable.begin(), kTable.end(),
                             [](const Entry& a, const Entry& b) { return a.name < b.name; }));

const Entry* findEntry(std::string_view name) {
    const auto* found = std::lower_bound(
        kTable.begin(), kTable.end(), name,
        [](const Entry& entry, std::string_view wanted) { return entry.name < wanted; });
    return found != kTable.end() && found->name == name ? found : nullptr;
}

void setBits(MountAttributes& attributes, uint64_t bits) {
    attributes.set |= bits;
    attributes.clear &= ~bits;
}

void clearBits(MountAttributes& attributes, uint64_t bits) {
    attributes.set &= ~bits;
    attributes.clear |= bits;
}

// The kernel wants the whole field cleared when one of its values is set.
void setAtime(MountAttributes& attributes, uint64_t value) {
    attributes.set = (attributes.set & ~static_cast<uint64_t>(MOUNT_ATTR__ATIME)) | value;
    attributes.clear |= MOUNT_ATTR__ATIME;
}

void apply(const Entry& entry, MountOptions& options) {
    switch (entry.kind) {
        case Kind::kNothing:
            return;
        case Kind::kSet:
            setBits(options.top, entry.attribute);
            options.superblock_flags |= entry.superblock;
            return;
        case Kind::kClear:
            clearBits(options.top, entry.attribute);
            options.superblock_flags &= ~entry.superblock;
            return;
        case Kind::kAtime:
            setAtime(options.top, entry.attribute);
            return;
        case Kind::kSetTree:
            setBits(options.tree, entry.attribute);
            return;
        case Kind::kClearTree:
            clearBits(options.tree, entry.attribute);
            return;
        case Kind::kAtimeTree:
            setAtime(options.tree, entry.attribute);
            return;
        case Kind::kPropagation:
            options.propagation.push_back({entry.attribute, Depth::kTop});
            return;
        case Kind::kPropagationTree:
            options.propagation.push_back({entry.attribute, Depth::kTree});
            return;
        case Kind::kBind:
            options.bind = true;
            return;
        case Kind::kBindTree:
            options.bind = true;
            options.bind_depth = Depth::kTree;
            return;
        case Kind::kRemount:
            options.remount = true;
            return;
        case Kind::kCopyUp:
            options.tmpcopyup = true;
            return;
        case Kind::kIdmap:
            options.idmap = IdmapOption::kTop;
            return;
        case Kind::kIdmapTree:
            options.idmap = IdmapOption::kTree;
            return;
    }
}

}  // namespace

Result<MountOptions> parseMountOptions(std::string_view type,
                                       const std::vector<std::string>& options) {
    MountOptions result;
    result.bind = type == "bind";
    for (const std::string& option : options) {
        if (option.find('\0') != std::string::npos)
            return fail(Code::kInvalidArgument, "mount option with a NUL byte");
        const Entry* entry = findEntry(option);
        if (entry != nullptr) apply(*entry, result);
        if (entry == nullptr && !option.empty()) result.data.push_back(option);
    }
    return result;
}

Result<PropagationChange> parsePropagation(std::string_view word) {
    if (word.empty()) return PropagationChange{0, Depth::kTop};
    const Entry* entry = findEntry(word);
    if (entry != nullptr && entry->kind == Kind::kPropagation)
        return PropagationChange{entry->attribute, Depth::kTop};
    if (entry != nullptr && entry->kind == Kind::kPropagationTree)
        return PropagationChange{entry->attribute, Depth::kTree};
    return fail(Code::kInvalidArgument,
                "rootfsPropagation \"" + base::printable(word) + "\" is not known");
}

bool isKnownMountOption(std::string_view name) {
    return findEntry(name) != nullptr;
}

bool Mount::isBind() const {
    return type == "bind" || std::any_of(options.begin(), options.end(), [](const auto& option) {
               return option == "bind" || option == "rbind";
           });
}

}  // namespace arca::spec
