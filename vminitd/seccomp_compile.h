// linux.seccomp as the program that the kernel takes.
//
// Compiled here and not in vmexec, so that an agent that stays compiles a profile once. Called from
// the agent's loop. Source: runtime-spec config-linux.md "Seccomp", seccomp_rule_add(3).
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vminitd {

struct SeccompProgram {
    std::string filter;  // array of struct sock_filter
    uint32_t flags = 0;  // SECCOMP_FILTER_FLAG_*
    bool notify = false;
};

// Compiles `profile`. System call names that the library does not know, or that an architecture
// does not have, are skipped with a debug line; everything else that is unknown is
// kInvalidArgument. `flags` absent: SPEC_ALLOW where the kernel has it, as runc does. Calls newer
// than the profile fail with ENOSYS, see seccomp_enosys.h.
base::Result<SeccompProgram> compileSeccomp(const spec::Seccomp& profile);

// Compiled programs by profile.
class SeccompCache {
 public:
    base::Result<SeccompProgram> get(const spec::Seccomp& profile);

 private:
    std::unordered_map<std::string, SeccompProgram> programs_;  // by the profile's whole text
};

}  // namespace arca::vminitd
