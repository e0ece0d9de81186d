// What the CLI keeps on disk of a container, and how it is written down. No system calls here.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/process.h"
#include "base/result.h"
#include "runtime/systemd/scope.h"
#include "spec/spec.h"

namespace arca::runtime {

// How far the commands have come. What a container is doing now is derived from this and from the
// kernel: see Driver::status().
enum class Stage {
    kCreating,  // create or run is at work, or died at it
    kCreated,
    kRunning,
};

// One state.json.
struct Record {
    std::string id;
    Stage stage = Stage::kCreating;
    base::ProcessIdentity init;  // pid as the creator saw it; 0 before kCreated
    std::string bundle;          // absolute
    std::string rootfs;          // absolute
    std::string created;         // RFC 3339
    std::string oci_version;
    spec::Annotations annotations;
    uid_t owner = 0;
    std::string rootless;    // the creator's --rootless
    std::string sandbox;     // which driver has it
    std::string sandbox_id;  // the container that owns the sandbox; of `local` its own id
    // Labels for security modules are for the kernel that its processes have.
    bool applies_labels = true;
    // The configuration's own pid namespace: when its init ends, the kernel ends the rest.
    bool private_pid_namespace = false;
    // With --systemd-cgroup: the unit that the container is in.
    std::optional<systemd::ScopeName> scope;
    // HOME was in the configuration; else the agent added it for the init's user.
    bool home_given = false;
    // poststart, poststop, startContainer: start and delete must not depend on the bundle, which
    // may have changed or gone.
    spec::Hooks hooks;
};

std::string writeRecord(const Record& record);

// Fails with kInternal when the text is not what writeRecord() makes: another version, a torn file.
base::Result<Record> parseRecord(std::string_view json);

// Now, in RFC 3339 with as many digits of nanoseconds as are not zero, as Go prints it.
std::string timestampNow();
std::string timestamp(int64_t seconds, int64_t nanoseconds);

}  // namespace arca::runtime
