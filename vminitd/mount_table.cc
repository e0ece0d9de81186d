#include "vminitd/mount_table.h"

#include <sys/mount.h>

#include <algorithm>
#include <cerrno>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::failErrno;
using base::Result;

namespace {

// "36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda rw"
constexpr size_t kMountPoint = 4;

Result<std::string> mountInfo() {
    constexpr size_t kMaxBytes = size_t{64} << 20U;
    return base::readFile("/proc/self/mountinfo", kMaxBytes);
}

// Undoes the octal escapes of spaces and the like.
std::string unescape(std::string_view text) {
    constexpr size_t kEscape = 4;  // "\040"
    std::string out;
    while (!text.empty()) {
        const auto code = text.front() == '\\' && text.size() >= kEscape
                              ? base::parseNumber<unsigned>(text.substr(1, kEscape - 1), 8)
                              : std::nullopt;
        out += code ? static_cast<char>(*code) : text.front();
        text.remove_prefix(code ? kEscape : 1);
    }
    return out;
}

}  // namespace

std::vector<std::string> parseMountPoints(std::string_view mountinfo) {
    std::vector<std::string> out;
    for (const std::string_view line : base::split(mountinfo, '\n')) {
        const auto fields = base::split(line, ' ');
        if (fields.size() > kMountPoint) out.push_back(unescape(fields[kMountPoint]));
    }
    return out;
}

std::string findMountPoint(std::string_view mountinfo, std::string_view type) {
    for (const std::string_view line : base::split(mountinfo, '\n')) {
        const auto fields = base::split(line, ' ');
        // How many fields are before the dash differs; it cannot be part of one.
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (fields.end() - dash < 2 || dash - fields.begin() <= ptrdiff_t{kMountPoint}) continue;
        if (dash[1] == type) return unescape(fields[kMountPoint]);
    }
    return {};
}

Result<std::vector<std::string>> mountPoints() {
    ARCA_TRY(const std::string text, mountInfo());
    return parseMountPoints(text);
}

Result<std::string> mountPointOf(std::string_view type) {
    ARCA_TRY(const std::string text, mountInfo());
    return findMountPoint(text, type);
}

Result<> unmountAllBelow(const std::string& path) {
    ARCA_TRY(std::vector<std::string> points, mountPoints());
    std::reverse(points.begin(), points.end());
    for (const std::string& point : points) {
        if (point != path && point.rfind(path + "/", 0) != 0) continue;
        if (::umount2(point.c_str(), UMOUNT_NOFOLLOW) == 0) continue;
        // EINVAL: gone already, with what it was mounted on.
        if (errno != EINVAL && errno != ENOENT) return failErrno("umount " + point);
    }
    return {};
}

}  // namespace arca::vminitd
