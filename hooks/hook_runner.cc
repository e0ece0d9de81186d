#include "hooks/hook_runner.h"

#include <chrono>

#include "base/signals.h"
#include "base/strings.h"
#include "base/subprocess.h"

namespace arca::hooks {
namespace {

using base::Code;
using base::Result;

// Output for a message: one line, without the line end that programs finish with.
std::string oneLine(std::string_view output) {
    return base::printable(base::trim(output));
}

Result<> runOne(const spec::Hook& hook, const HookContext& context, const std::string& state) {
    if (hook.service) return base::fail(Code::kUnsupported, "a service, which only agents run");
    base::Command command;
    command.path = hook.path;
    command.args = hook.args;
    command.env = hook.env.value_or(context.default_env);
    command.cwd = context.cwd;
    command.input = state;
    command.cgroup_procs = context.cgroup_procs;
    command.plain_oom_score = context.plain_oom_score;
    if (hook.timeout) command.timeout = std::chrono::seconds(*hook.timeout);
    const auto outcome = base::runCommand(command);
    if (!outcome && outcome.error().code() == Code::kDeadlineExceeded) {
        return base::fail(Code::kDeadlineExceeded, "hook ran past specified timeout of " +
                                                       std::to_string(*hook.timeout) + ".0s");
    }
    if (!outcome) return base::fail(outcome.error());
    if (outcome->exit_code == 0) return {};
    const std::string end = outcome->signal != 0
                                ? "killed by " + base::signalName(outcome->signal)
                                : "exit status " + std::to_string(outcome->exit_code);
    return base::fail(Code::kFailedPrecondition, end + ", stdout: " + oneLine(outcome->out) +
                                                     ", stderr: " + oneLine(outcome->err));
}

Result<> runNumbered(const std::vector<spec::Hook>& hooks, size_t number,
                     const HookContext& context, const std::string& state) {
    const spec::Hook& hook = hooks[number];
    auto result = runOne(hook, context, state);
    if (result) return result;
    const std::string which =
        hook.file.empty() ? "#" + std::to_string(number) : base::printable(hook.file);
    return base::fail(
        std::move(result).error().withContext("error running " + context.kind + " hook " + which));
}

}  // namespace

Result<> runHook(const std::vector<spec::Hook>& hooks, size_t number, const HookContext& context) {
    return runNumbered(hooks, number, context, spec::writeState(context.state));
}

Result<> runHooks(const std::vector<spec::Hook>& hooks, const HookContext& context) {
    if (hooks.empty()) return {};
    const std::string state = spec::writeState(context.state);
    for (size_t i = 0; i < hooks.size(); ++i) {
        ARCA_CHECK(runNumbered(hooks, i, context, state));
    }
    return {};
}

void runAllHooks(const std::vector<spec::Hook>& hooks, const HookContext& context,
                 const std::function<void(const base::Error&)>& warn) {
    if (hooks.empty()) return;
    const std::string state = spec::writeState(context.state);
    for (size_t i = 0; i < hooks.size(); ++i) {
        const auto result = runNumbered(hooks, i, context, state);
        if (!result) warn(result.error());
    }
}

}  // namespace arca::hooks
