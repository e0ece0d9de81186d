// What a seccomp filter answers to system calls that are newer than its profile.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spec/spec.h"

namespace arca::vminitd {

// Instructions (an array of struct sock_filter) to stand before the filter of `profile`: a call
// with a number above each one that the profile names for that architecture fails with ENOSYS,
// whatever the default action. C libraries try new calls and fall back to older ones at ENOSYS;
// EPERM or a signal they would pass on. Empty when the default action lets calls through or is
// ENOSYS already, and for architectures that the profile does not list. `architectures`: the
// library's tokens of those that the filter was made for. Source: runc, libcontainer/seccomp.
std::string enosysPrefix(const spec::Seccomp& profile, const std::vector<uint32_t>& architectures);

}  // namespace arca::vminitd
