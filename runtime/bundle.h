// A bundle's configuration, read and made independent of where it lies.
#pragma once

#include <string>

#include "base/result.h"
#include "runtime/context.h"
#include "spec/spec.h"

namespace arca::runtime {

struct Bundle {
    std::string path;  // absolute, symlinks resolved
    // root.path and the sources of bind mounts are absolute.
    spec::Spec spec;
};

// Opens `dir` ("" is the working directory) and reads `config_name` ("" is config.json) in it.
// What the specification wants warned about is logged. Fails with kNotFound and runc's text when
// there is no such file, kInvalidArgument when it is not valid, names no process, or its rootfs is
// not there.
base::Result<Bundle> loadBundle(const std::string& dir, const std::string& config_name);

// With the cgroup manager disabled a configuration that asks for limits cannot be kept to. Device
// rules are let through: engines send them always, and say so to who disables cgroups.
base::Result<> checkNoLimits(const spec::Resources& resources);

// Whether cgroupsPath suits the cgroup driver that the caller chose.
base::Result<> checkCgroupsPath(const std::string& cgroups_path, const Globals& globals);

// runc's rules: who detaches needs somewhere to leave the terminal, and nobody else does.
base::Result<> checkTerminal(bool terminal, bool detach, bool console_socket);

// Makes relative sources of bind mounts absolute: they are relative to the bundle.
void resolveBindSources(spec::Spec& spec, const std::string& bundle);

}  // namespace arca::runtime
