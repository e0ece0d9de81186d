// Runs OCI hooks one after the other, with the state on stdin.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"
#include "spec/state.h"

namespace arca::hooks {

// Where and as what the hooks of one kind run.
struct HookContext {
    std::string kind;  // "prestart", "poststop", ... for messages
    spec::State state;
    std::string cwd;
    std::vector<std::string> default_env;  // used by a hook without env: the caller's own
    std::string cgroup_procs{};            // as of base::Command
    bool plain_oom_score = false;          // the same
};

// Runs one of `hooks`, as runHooks() does.
base::Result<> runHook(const std::vector<spec::Hook>& hooks, size_t number,
                       const HookContext& context);

// Runs `hooks` in order and stops at the first that fails: does not start, exits non-zero, dies by
// a signal, or runs past its timeout (it is killed with its children). The error reads "error
// running prestart hook #0: exit status 1, stdout: , stderr: ..."; one of a hooks.d file has the
// file's name instead of its number. A service is kUnsupported: it needs an agent.
base::Result<> runHooks(const std::vector<spec::Hook>& hooks, const HookContext& context);

// Runs all of them whatever happens and gives the failures to `warn`: poststop's rule.
void runAllHooks(const std::vector<spec::Hook>& hooks, const HookContext& context,
                 const std::function<void(const base::Error&)>& warn);

}  // namespace arca::hooks
