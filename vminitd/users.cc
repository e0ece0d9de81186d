#include "vminitd/users.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/files.h"
#include "base/strings.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::split;
using base::UniqueFd;

namespace {

constexpr char kPasswdPath[] = "/etc/passwd";
constexpr char kGroupPath[] = "/etc/group";
constexpr uint32_t kNoId = UINT32_MAX;

// Lines without their ends, blank ones and comments left out.
void forEachLine(std::string_view text, const std::function<bool(std::string_view)>& line) {
    while (!text.empty()) {
        const size_t end = text.find('\n');
        const std::string_view one = base::trim(text.substr(0, end));
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        if (one.empty() || one.front() == '#') continue;
        if (!line(one)) return;
    }
}

bool isNumeric(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

void forEachPasswdLine(std::string_view text,
                       const std::function<bool(const PasswdEntry&)>& entry) {
    forEachLine(text, [&](std::string_view line) {
        const auto fields = split(line, ':');
        if (fields.size() != 7 || fields[0].empty()) return true;
        const auto uid = base::parseNumber<uint32_t>(fields[2]);
        const auto gid = base::parseNumber<uint32_t>(fields[3]);
        if (!uid || !gid || *uid == kNoId || *gid == kNoId) return true;
        return entry(PasswdEntry{std::string(fields[0]), *uid, *gid, std::string(fields[5])});
    });
}

void forEachGroupLine(std::string_view text, const std::function<bool(const GroupEntry&)>& entry) {
    forEachLine(text, [&](std::string_view line) {
        const auto fields = split(line, ':');
        if (fields.size() != 4 || fields[0].empty()) return true;
        const auto gid = base::parseNumber<uint32_t>(fields[2]);
        if (!gid || *gid == kNoId) return true;
        GroupEntry group{std::string(fields[0]), *gid, {}};
        for (const std::string_view member : split(fields[3], ',')) {
            if (!member.empty()) group.members.emplace_back(member);
        }
        return entry(group);
    });
}

Result<std::optional<uint32_t>> parseId(std::string_view text) {
    const bool negative = text.size() > 1 && text.front() == '-' && isNumeric(text.substr(1));
    if (!negative && !isNumeric(text)) return std::optional<uint32_t>();
    const auto value = negative ? std::nullopt : base::parseNumber<uint32_t>(text);
    if (!value || *value == kNoId) {
        return fail(Code::kInvalidArgument,
                    "user or group id " + std::string(text) + ": out of range 0..4294967294");
    }
    return std::optional<uint32_t>(*value);
}

Result<UserSpec> splitUserSpec(std::string_view text) {
    UserSpec out;
    const size_t colon = text.find(':');
    out.user = text.substr(0, colon);
    if (colon != std::string_view::npos) out.group = std::string(text.substr(colon + 1));
    if (out.user.empty() || (out.group && out.group->empty())) {
        return fail(Code::kInvalidArgument,
                    "user \"" + base::printable(text) + "\": user and group must not be empty");
    }
    return out;
}

UserFiles::UserFiles(int root_fd, std::string passwd_override, std::string group_override)
    : root_fd_(root_fd),
      passwd_override_(std::move(passwd_override)),
      group_override_(std::move(group_override)) {}

std::string UserFiles::passwdName() const {
    return passwd_override_.empty() ? kPasswdPath : passwd_override_;
}

std::string UserFiles::groupName() const {
    return group_override_.empty() ? kGroupPath : group_override_;
}

Result<std::string_view> UserFiles::passwd() {
    return read(passwd_, passwd_override_, kPasswdPath);
}

Result<std::string_view> UserFiles::group() {
    return read(group_, group_override_, kGroupPath);
}

Result<std::string_view> UserFiles::read(std::optional<std::string>& cache,
                                         const std::string& path_override, const char* path) {
    if (cache) return std::string_view(*cache);
    // O_NONBLOCK: a FIFO in the image must not hold the agent up.
    constexpr int kFlags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
    auto fd = path_override.empty() ? base::openInRoot(root_fd_, path, kFlags)
                                    : base::openAt(AT_FDCWD, path_override, kFlags);
    if (!fd) {
        const int why = fd.error().sysErrno();
        // ELOOP: a symlink that leads nowhere inside the root, the same as no file.
        if (why == ENOENT || why == ENOTDIR || why == ELOOP)
            return std::string_view(cache.emplace());
        return fail(std::move(fd).error());
    }
    struct stat st {};
    if (::fstat(fd->get(), &st) != 0) return base::failErrno(std::string("stat ") + path);
    if (!S_ISREG(st.st_mode)) {
        return fail(Code::kInvalidArgument,
                    std::string(path) + " in the container's root: not a regular file");
    }
    auto text = base::readAll(fd->get(), kMaxUserFileBytes);
    if (!text) return fail(std::move(text).error().withContext(path));
    return std::string_view(cache.emplace(std::move(*text)));
}

namespace {

Result<> resolveGroupPart(const std::string& group, UserFiles& files, ResolvedUser& out) {
    ARCA_TRY(const auto number, parseId(group));
    if (number) {
        out.gid = *number;
        return {};
    }
    ARCA_TRY(const std::string_view text, files.group());
    bool found = false;
    forEachGroupLine(text, [&](const GroupEntry& entry) {
        if (entry.name != group) return true;
        out.gid = entry.gid;
        found = true;
        return false;
    });
    if (found) return {};
    return fail(Code::kNotFound, "no group \"" + base::printable(group) + "\" in the container's " +
                                     files.groupName());
}

Result<> addMemberships(const std::string& name, UserFiles& files, ResolvedUser& out) {
    ARCA_TRY(const std::string_view text, files.group());
    forEachGroupLine(text, [&](const GroupEntry& entry) {
        if (std::find(entry.members.begin(), entry.members.end(), name) != entry.members.end()) {
            out.supplementary.push_back(entry.gid);
        }
        return true;
    });
    return {};
}

}  // namespace

Result<ResolvedUser> resolveUser(std::string_view user_spec, uint32_t default_gid,
                                 UserFiles& files) {
    ARCA_TRY(const UserSpec spec, splitUserSpec(user_spec));
    ARCA_TRY(const auto number, parseId(spec.user));
    ResolvedUser out;
    out.gid = default_gid;
    std::string name;
    // "uid:gid" needs no file at all.
    if (!number || !spec.group) {
        ARCA_TRY(const std::string_view text, files.passwd());
        forEachPasswdLine(text, [&](const PasswdEntry& entry) {
            if (number ? entry.uid != *number : entry.name != spec.user) return true;
            out.uid = entry.uid;
            out.gid = entry.gid;
            name = entry.name;
            return false;
        });
    }
    if (number) out.uid = *number;
    if (!number && name.empty()) {
        return fail(Code::kNotFound, "no user \"" + base::printable(spec.user) +
                                         "\" in the container's " + files.passwdName());
    }
    if (spec.group) {
        ARCA_CHECK(resolveGroupPart(*spec.group, files, out));
        return out;
    }
    if (!name.empty()) ARCA_CHECK(addMemberships(name, files, out));
    return out;
}

std::string homeOf(uint32_t uid, UserFiles& files) {
    const auto text = files.passwd();
    std::string home;
    forEachPasswdLine(text.value_or(std::string_view()), [&](const PasswdEntry& entry) {
        if (entry.uid != uid) return true;
        home = entry.home;
        return false;
    });
    return home.empty() ? "/" : home;
}

}  // namespace arca::vminitd
