// The cgroup of this host that stands for a container whose process is in a guest: its stand-in is
// in it, so that who looks for the container's cgroup by the pid finds one of its own and not the
// caller's. Limits are the guest's and the machine's matter; here are none.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace arca::runtime {

// Makes the cgroup in each hierarchy and puts `pid` in. What has to be made is written to a file in
// the container's folder first. `cgroups_path` as in config.json; "": /<container_id>. The same
// errors as of a container in the local sandbox.
base::Result<> enterHostCgroup(int container_dir_fd, const std::string& container_id,
                               const std::string& cgroups_path, pid_t pid);

// Removes what enterHostCgroup() made; nothing where it made nothing. For a container whose
// stand-in has ended.
base::Result<> removeHostCgroup(int container_dir_fd);

}  // namespace arca::runtime
