// Namespaces: which the configuration wants made and which joined, and the joining.
//
// Stage 1 opens and checks every path before it joins anything, so that a wrong one leaves nothing
// half done. Source: namespaces(7), setns(2), ioctl_ns(2).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "spec/spec.h"

namespace arca::vmexec {

// CLONE_NEW* of a type, and its name in /proc/PID/ns.
uint64_t cloneFlag(spec::NamespaceType type);
std::string_view nsName(spec::NamespaceType type);

struct JoinTarget {
    spec::NamespaceType type;
    std::string path;  // for messages
    base::UniqueFd fd;
};

struct NamespacePlan {
    std::vector<JoinTarget> join;  // in an order in which they can be joined; no user namespace
    base::UniqueFd user;           // the user namespace to join, -1 when none
    std::string user_path;
    uint64_t create = 0;  // CLONE_NEW* for clone3, without time and cgroup: the init makes those
};

// Opens all that have a path. Fails on one that cannot be opened, is no namespace, or is one of
// another type. A user namespace that is the caller's own is left out: it cannot be joined again.
base::Result<NamespacePlan> openNamespaces(const std::vector<spec::Namespace>& namespaces);

// Joins all but the user namespace. Those that the kernel refuses for want of privilege stay in
// `plan.join`: they belong to the user namespace and are tried again by joinUserNamespace().
base::Result<> joinNamespaces(NamespacePlan& plan);

// Joins the user namespace, if any, and what was left over.
base::Result<> joinUserNamespace(NamespacePlan& plan);

// New time namespace with `offsets`, which the caller itself enters. Init's side.
base::Result<> enterNewTimeNamespace(const std::map<std::string, spec::TimeOffset>& offsets);

// The device and inode number that tell namespaces apart; of the file /proc/`who`/ns/`name`.
base::Result<std::pair<uint64_t, uint64_t>> namespaceIdentity(const std::string& who,
                                                              std::string_view name);

// clone3(2) with CLONE_PARENT and `flags`: the child is the caller's sibling. Gives 0 in the child;
// in the parent the pid, and `pidfd` is set.
base::Result<pid_t> cloneSibling(uint64_t flags, base::UniqueFd& pidfd);

}  // namespace arca::vmexec
