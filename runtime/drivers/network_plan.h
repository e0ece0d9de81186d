// What becomes of a container's network namespace when the container is in a guest.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/drivers/guest_spec.h"

namespace arca::runtime {

// A container of the same sandbox.
struct SandboxMember {
    std::string id;
    pid_t pid;  // of its stand-in
};

struct NetworkSituation {
    bool forwards = true;        // the configuration has it so
    bool may_be_plugged = true;  // somebody has the time to put interfaces into a new namespace
    bool owns_sandbox = true;    // is not a later container of a pod: a guest has one forwarder
    std::vector<SandboxMember> members;
    // The path in the guest of the network namespace that a member's init is in.
    std::function<base::Result<std::string>(const SandboxMember&)> guest_namespace;
};

// Whether interfaces can come to be in the container's network namespace, as far as its
// configuration says without looking at the namespace.
bool mayHaveInterfaces(const spec::Spec& spec, bool may_be_plugged);

// Completes `guest`, whose network_namespace is known. A namespace that is another member's is
// joined in the guest too; for one that interfaces can be in the annotation is set; this host's own
// is never forwarded, which is said in a warning; nor is one that a later container of a pod has
// for itself.
base::Result<> planNetwork(GuestSpec& guest, const NetworkSituation& situation);

}  // namespace arca::runtime
