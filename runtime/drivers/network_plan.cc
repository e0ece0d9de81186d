#include "runtime/drivers/network_plan.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "spec/network_annotation.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

Result<UniqueFd> openNetworkNamespace(const std::string& path) {
    ARCA_TRY(UniqueFd fd, base::openAt(AT_FDCWD, path, O_RDONLY));
    if (::ioctl(fd.get(), NS_GET_NSTYPE) == CLONE_NEWNET) return fd;
    return fail(Code::kInvalidArgument, base::printable(path) + ": not a network namespace");
}

template <typename Spec>
auto* networkNamespace(Spec& spec) {
    auto& all = spec.linux.namespaces;
    const auto found = std::find_if(all.begin(), all.end(), [](const spec::Namespace& ns) {
        return ns.type == spec::NamespaceType::kNetwork;
    });
    return found == all.end() ? nullptr : &*found;
}

// Not where the configuration has it so.
void warnNoNetwork(const NetworkSituation& situation, const char* why) {
    if (!situation.forwards) return;
    base::log::warning(std::string("the guest has no network: ") + why);
}

}  // namespace

bool mayHaveInterfaces(const spec::Spec& spec, bool may_be_plugged) {
    const spec::Namespace* ns = networkNamespace(spec);
    return ns != nullptr && (!ns->path.empty() || may_be_plugged);
}

Result<> planNetwork(GuestSpec& guest, const NetworkSituation& situation) {
    const auto forward = [&] {
        if (!situation.forwards) return;
        guest.spec.annotations[spec::kNetworkAnnotation] = spec::kForwardedNetwork;
    };
    if (guest.new_network_namespace) {
        if (situation.may_be_plugged && situation.owns_sandbox) forward();
        return {};
    }
    if (guest.network_namespace.empty()) {
        warnNoNetwork(situation, "the configuration gives the container this host's own");
        return {};
    }
    ARCA_TRY(const UniqueFd wanted, openNetworkNamespace(guest.network_namespace));
    ARCA_TRY(const UniqueFd own, openNetworkNamespace("/proc/self/ns/net"));
    ARCA_TRY(const bool shared, base::isSameFile(wanted.get(), own.get()));
    if (shared) {
        warnNoNetwork(situation, "the namespace that it is to have is this host's own");
        return {};
    }
    for (const SandboxMember& member : situation.members) {
        const auto theirs = openNetworkNamespace("/proc/" + std::to_string(member.pid) + "/ns/net");
        if (!theirs) continue;  // it has just ended
        ARCA_TRY(const bool same, base::isSameFile(wanted.get(), theirs->get()));
        if (!same) continue;
        spec::Namespace* ns = networkNamespace(guest.spec);
        if (ns == nullptr) break;
        ARCA_TRY(ns->path, situation.guest_namespace(member));
        return {};
    }
    if (situation.owns_sandbox) {
        forward();
    } else {
        warnNoNetwork(situation, "its sandbox has another one, and there is one in a guest");
    }
    return {};
}

}  // namespace arca::runtime
