#include "vminitd/guest_hooks.h"

#include <thread>
#include <utility>

#include "base/log.h"
#include "hooks/hook_runner.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

hooks::HookContext contextFor(const std::string& kind, const spec::State& state,
                              const std::vector<std::string>& env,
                              const std::string& cgroup_procs) {
    return {.kind = kind,
            .state = state,
            .cwd = "/",
            .default_env = env,
            .cgroup_procs = cgroup_procs,
            .plain_oom_score = true};
}

}  // namespace

void GuestHooks::run(std::vector<HookList> lists, const spec::State& state,
                     std::function<void(Result<>)> done) {
    std::thread([&loop = loop_, lists = std::move(lists), state, env = environment_.all(),
                 cgroup = cgroup_procs_, done = std::move(done)]() mutable {
        Result<> result;
        for (const HookList& list : lists) {
            result = hooks::runHooks(list.hooks, contextFor(list.kind, state, env, cgroup));
            if (!result) break;
        }
        // A hook's end is none of the protocol's codes.
        if (!result) result = fail(Code::kInternal, result.error().message());
        loop.post([done = std::move(done), result = std::move(result)]() mutable {
            done(std::move(result));
        });
    }).detach();
}

void GuestHooks::runAll(HookList list, const spec::State& state, std::function<void()> done) {
    std::thread([&loop = loop_, list = std::move(list), state, env = environment_.all(),
                 cgroup = cgroup_procs_, done = std::move(done)]() mutable {
        hooks::runAllHooks(list.hooks, contextFor(list.kind, state, env, cgroup),
                           [&state](const base::Error& error) {
                               base::log::warning(error.message() + " container=" + state.id);
                           });
        loop.post(std::move(done));
    }).detach();
}

}  // namespace arca::vminitd
