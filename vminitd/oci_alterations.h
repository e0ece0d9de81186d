// ociAlterations: what the agent fills in before a configuration becomes a plan. Everything else
// stays as it was sent.
//
// Source: the guest protocol's CreateProcess, with its known defects put right; field reports 6, 7
// and 8.
#pragma once

#include <string>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vminitd {

struct AlterationContext {
    std::string process_id;
    // The folder that a relative root.path is relative to; empty: it must be absolute.
    std::string bundle;
    // Prefix of the cgroup of a configuration that names none: "/container" in a VM, "" locally.
    std::string cgroup_prefix;
    // The rootfs as an open directory, borrowed; -1: root.path is opened. An exec looks through
    // the container's own mounts.
    int root_fd = -1;
    // A bundle may do without `process` as long as it is only created.
    bool process_may_be_missing = false;
    // Arca's hosts put extra groups into the environment as ARCA_GROUP_ADD=a,b.
    bool arca_group_add = false;
};

// Alters `spec`. Fails with kInvalidArgument when `process` or `root` is missing or a user form is
// wrong, kNotFound when a named user or group does not exist.
//
//  user    resolved from `username` when there is one: uid, gid, and additionalGids = those given +
//          the user's groups + the primary one. Without one the lists are used exactly as given.
//  env     PATH, HOME and (with a terminal) TERM added when missing; an empty HOME counts as
//  missing. cwd     "/" when empty. root    absolute. cgroupsPath  absolute; a default when empty.
base::Result<> applyOciAlterations(spec::Spec& spec, const AlterationContext& context);

}  // namespace arca::vminitd
