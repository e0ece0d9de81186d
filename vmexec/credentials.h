// The user, groups, capabilities and working directory of the program.
//
// Steps of launch.cc, which has their order and the reasons for it. Raw system calls throughout.
#pragma once

#include <string>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vmexec {

// Makes the caller user and group 0 of the user namespace that it is in, so that what it makes has
// an owner there.
base::Result<> becomeNamespaceRoot();

// Gives descriptors 0 to 2 to user `uid`, so that the program can reopen /dev/stdout, but for
// /dev/null, which is everybody's. What cannot be given away stays.
void giveStdio(uid_t uid);

// Supplementary groups, then the group, then the user. setgroups(2) that is denied (a user
// namespace without privilege) is a failure only if there are groups to set.
base::Result<> changeUser(const spec::User& user);

// Makes `cwd` inside `root_fd` (0755) when it is missing. Failures are left for enterCwd() to name.
void makeCwd(int root_fd, const std::string& cwd);

// Changes to `cwd`, found inside `root_fd` without magic links.
base::Result<> enterCwd(int root_fd, const std::string& cwd);

// Fails unless the working directory is reachable from the root directory (CVE-2024-21626).
base::Result<> checkCwdInsideRoot();

}  // namespace arca::vmexec
