// uid and gid maps of user namespaces. Stage 1's side: it still has the caller's privileges.
//
// Source: user_namespaces(7).
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/spec.h"

namespace arca::vmexec {

// Writes the maps of process `pid`, which must be dumpable if the caller is not the superuser.
// Without privilege over the ids the kernel allows only a map of the caller's own id, with
// setgroups(2) denied first; every other one is newuidmap(1)'s and newgidmap(1)'s to write.
base::Result<> writeIdMaps(pid_t pid, const std::vector<spec::IdMapping>& uids,
                           const std::vector<spec::IdMapping>& gids);

// A user namespace with these maps and no process in it, for idmapped mounts.
base::Result<base::UniqueFd> makeUserNamespace(const std::vector<spec::IdMapping>& uids,
                                               const std::vector<spec::IdMapping>& gids);

}  // namespace arca::vmexec
