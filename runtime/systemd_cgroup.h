// The cgroup of a container as a scope of systemd: what commands do with --systemd-cgroup, and
// later on containers that were created with it.
#pragma once

#include <sys/types.h>

#include "base/result.h"
#include "runtime/record.h"
#include "spec/spec.h"

namespace arca::runtime {

// The scope that `spec` asks for; an error for a cgroupsPath that is not "slice:prefix:name".
base::Result<systemd::ScopeName> scopeFor(const spec::Spec& spec, const std::string& id);

// Starts the scope `name` with the process `pid` in it, and puts its path in the place of
// spec.linux.cgroupsPath. From then on it is `record.scope`: save the record. (A command that dies
// before leaves no scope: the process ends with it, and systemd removes what is empty.) With a
// scope in the record already, that one is stopped first.
base::Result<> placeInScope(const systemd::ScopeName& name, pid_t pid, spec::Spec& spec,
                            Record& record);

// Tells systemd the limits that `resources` has by now.
base::Result<> updateScope(const Record& record, const spec::Resources& resources);

// Removes the scope, whose processes have been ended. None in the record, or none there: no error.
base::Result<> stopScope(const Record& record);

}  // namespace arca::runtime
