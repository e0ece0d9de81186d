// Users and groups of a container, from its own /etc/passwd and /etc/group.
//
// The files belong to the image: they are opened inside the rootfs only, must be regular, are read
// up to a limit, and lines that make no sense are skipped. Called from the agent's loop.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::vminitd {

// Largest passwd or group file that is read, in bytes.
inline constexpr size_t kMaxUserFileBytes = size_t{8} << 20U;

struct PasswdEntry {
    std::string name;
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::string home;
};

struct GroupEntry {
    std::string name;
    uint32_t gid = 0;
    std::vector<std::string> members;
};

// Calls `entry` for each well-formed line until it gives false. Seven (passwd) or four (group)
// fields; comments, blank and malformed lines are passed over.
void forEachPasswdLine(std::string_view text, const std::function<bool(const PasswdEntry&)>& entry);
void forEachGroupLine(std::string_view text, const std::function<bool(const GroupEntry&)>& entry);

// A user or group id as text: digits only, at most 4294967294 ((uint32_t)-1 means "no change" to
// the kernel). nullopt: not a number. Fails with kInvalidArgument when it is one, but out of range
// or negative.
base::Result<std::optional<uint32_t>> parseId(std::string_view text);

// "name", "uid", "uid:gid", "name:group" ... in their two halves. Fails with kInvalidArgument when
// a half is empty ("1000:", ":5").
struct UserSpec {
    std::string user;
    std::optional<std::string> group;
};
base::Result<UserSpec> splitUserSpec(std::string_view text);

// The two files of one container, read when first needed.
class UserFiles {
 public:
    // `root_fd`: the rootfs; borrowed. Override paths, when not empty, are files of the agent's own
    // file system that the configuration mounts over the image's.
    UserFiles(int root_fd, std::string passwd_override, std::string group_override);

    // Content; empty when there is no such file. Fails when it is no regular file, too large or
    // unreadable.
    base::Result<std::string_view> passwd();
    base::Result<std::string_view> group();
    // How messages call the files.
    [[nodiscard]] std::string passwdName() const;
    [[nodiscard]] std::string groupName() const;

 private:
    base::Result<std::string_view> read(std::optional<std::string>& cache,
                                        const std::string& path_override, const char* path);

    int root_fd_;
    std::string passwd_override_;
    std::string group_override_;
    std::optional<std::string> passwd_;
    std::optional<std::string> group_;
};

struct ResolvedUser {
    uint32_t uid = 0;
    uint32_t gid = 0;
    std::vector<uint32_t> supplementary;  // from the group file; without the primary group
};

// Resolves `user_spec` (not empty). `default_gid` is the gid of a numeric user without an entry and
// without a group. A number never needs an entry; a name that is not found is kNotFound with the
// name of the file that was read.
// Source: docs of the guest protocol, ociAlterations step 4; field report
// apple/containerization#278.
base::Result<ResolvedUser> resolveUser(std::string_view user_spec, uint32_t default_gid,
                                       UserFiles& files);

// The home directory of `uid`; "/" when there is no entry, no directory in it, or no file that can
// be read: a number needs none.
std::string homeOf(uint32_t uid, UserFiles& files);

}  // namespace arca::vminitd
