#include "vminitd/guest_path.h"

#include <fcntl.h>
#include <limits.h>

#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

std::string joined(const std::vector<std::string_view>& parts, size_t from, size_t to) {
    std::string out;
    for (size_t i = from; i < to; ++i) {
        if (!out.empty()) out += '/';
        out += parts[i];
    }
    return out;
}

std::vector<std::string_view> partsOf(std::string_view path) {
    std::vector<std::string_view> out;
    for (const std::string_view part : base::split(path, '/')) {
        if (!part.empty() && part != ".") out.push_back(part);
    }
    return out;
}

// How many of the parts name a container's folder; 0: it is none.
size_t folderParts(const std::vector<std::string_view>& parts,
                   const std::vector<std::string_view>& containers) {
    const size_t depth = containers.size() + 2;  // + the id and the folder
    if (parts.size() < depth) return 0;
    for (size_t i = 0; i < containers.size(); ++i) {
        if (parts[i] != containers[i]) return 0;
    }
    if (!base::validateId(parts[depth - 2]) || parts[depth - 1] == "..") return 0;
    return depth;
}

}  // namespace

Result<GuestPath> GuestPath::parse(std::string_view text, std::string_view containers) {
    const auto wrong = [&](const char* why) {
        return fail(Code::kInvalidArgument,
                    "path \"" + base::printable(text.substr(0, 256)) + "\": " + why);
    };
    if (text.empty() || text.front() != '/') return wrong("not absolute");
    if (text.find('\0') != std::string_view::npos) return wrong("NUL byte");
    if (text.size() >= PATH_MAX) return wrong("too long");
    const auto parts = partsOf(text);
    const size_t depth = folderParts(parts, partsOf(containers));
    for (size_t i = 0; depth == 0 && i < parts.size(); ++i) {
        if (parts[i] == "..") return wrong("'..' is not allowed here");
    }
    GuestPath out;
    out.text_ = "/" + joined(parts, 0, parts.size());
    out.base_ = "/" + joined(parts, 0, depth);
    out.rest_ = joined(parts, depth, parts.size());
    return out;
}

GuestPath GuestPath::parent() const {
    GuestPath out = *this;
    if (rest_.empty()) {
        // Above a container's folder it is the sandbox's own path again.
        const size_t slash = text_.rfind('/');
        out.text_ = slash == 0 ? "/" : text_.substr(0, slash);
        out.base_ = "/";
        out.rest_ = out.text_.substr(1);
        return out;
    }
    const size_t slash = rest_.rfind('/');
    out.rest_ = slash == std::string::npos ? "" : rest_.substr(0, slash);
    const size_t end = text_.rfind('/');
    out.text_ = end == 0 ? "/" : text_.substr(0, end);
    return out;
}

std::string GuestPath::name() const {
    const size_t slash = rest_.rfind('/');
    return slash == std::string::npos ? rest_ : rest_.substr(slash + 1);
}

GuestPath GuestPath::child(std::string_view name) const {
    GuestPath out = *this;
    out.text_ += (text_ == "/" ? "" : "/") + std::string(name);
    out.rest_ += (rest_.empty() ? "" : "/") + std::string(name);
    return out;
}

Result<UniqueFd> GuestPath::openBase() const {
    // The agent made this folder, so a symlink in its place is none of ours.
    return base::openAt(AT_FDCWD, base_, O_PATH | O_DIRECTORY | (confined() ? O_NOFOLLOW : 0));
}

Result<UniqueFd> GuestPath::open(int flags, mode_t mode) const {
    if (!confined()) return base::openAt(AT_FDCWD, text_, flags, mode);
    ARCA_TRY(const UniqueFd root, openBase());
    auto found = base::openInRoot(root.get(), rest_.empty() ? "." : rest_, flags, mode);
    if (found) return found;
    return base::failErrno("open " + text_, found.error().sysErrno());
}

Result<UniqueFd> GuestPath::makeDirs(mode_t mode) const {
    if (!confined()) {
        ARCA_CHECK(base::makeDirs(text_, mode));
        return base::openAt(AT_FDCWD, text_, O_PATH | O_DIRECTORY);
    }
    ARCA_CHECK(base::makeDirs(base_, 0755));
    ARCA_TRY(const UniqueFd root, openBase());
    if (rest_.empty()) return base::openAt(root.get(), ".", O_PATH | O_DIRECTORY);
    return base::makeDirsInRoot(root.get(), rest_, mode);
}

Result<base::PathInRoot> GuestPath::resolve() const {
    if (confined()) ARCA_CHECK(base::makeDirs(base_, 0755));
    ARCA_TRY(const UniqueFd root, openBase());
    return base::resolveInRoot(root.get(), rest_, 0755);
}

}  // namespace arca::vminitd
