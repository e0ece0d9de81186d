#include "vminitd/guest_hooks.h"

#include <fcntl.h>

#include <algorithm>
#include <set>
#include <thread>

#include "base/files.h"
#include "base/log.h"
#include "hooks/hooks_dir.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

namespace {

bool isService(const spec::Hook& hook) {
    return hook.service.has_value();
}

// One run() under way. Owns itself until `done` was called.
class Sequence : public std::enable_shared_from_this<Sequence> {
 public:
    Sequence(EventLoop& loop, HookRun run, hooks::HookContext context,
             std::function<void(Result<>)> done)
        : loop_(loop),
          lists_(std::move(run.lists)),
          context_(std::move(context)),
          services_(std::move(run.services)),
          cancelled_(std::move(run.cancelled)),
          done_(std::move(done)) {}

    void start() {
        // While the process is surely there and the number its own.
        auto opened = openNamespace();
        if (!opened) return finish(std::move(opened));
        next();
    }

 private:
    Result<> openNamespace() {
        const auto wants = [](const spec::Hook& hook) {
            return isService(hook) && hook.service->network_namespace;
        };
        const bool any = std::any_of(lists_.begin(), lists_.end(), [&](const HookList& list) {
            return std::any_of(list.hooks.begin(), list.hooks.end(), wants);
        });
        if (!any) return {};
        const std::string path = "/proc/" + std::to_string(context_.state.pid) + "/ns/net";
        ARCA_TRY(network_, base::openAt(AT_FDCWD, path, O_RDONLY));
        return {};
    }

    void next() {
        while (list_ < lists_.size() && hook_ == lists_[list_].hooks.size()) {
            ++list_;
            hook_ = 0;
        }
        if (list_ == lists_.size()) return finish({});
        if (cancelled_ && *cancelled_) {
            return finish(fail(Code::kInternal, "the container is being removed"));
        }
        const HookList& list = lists_[list_];
        const size_t number = hook_++;
        context_.kind = list.kind;
        auto ended = [self = shared_from_this()](Result<> result) {
            if (!result) return self->finish(std::move(result));
            self->next();
        };
        const spec::Hook& hook = list.hooks[number];
        if (isService(hook) && services_) {
            const int network = hook.service->network_namespace ? network_.get() : -1;
            return services_->start(list.kind, hook, spec::writeState(context_.state), network,
                                    ended);
        }
        // What it holds is handed back with the result: nothing of ours may end on its thread.
        std::thread([&loop = loop_, &list, number, context = context_, ended]() mutable {
            auto result = hooks::runHook(list.hooks, number, context);
            loop.post([ended = std::move(ended), result = std::move(result)]() mutable {
                ended(std::move(result));
            });
        }).detach();
    }

    void finish(Result<> result) {
        // A hook's end is none of the protocol's codes.
        if (!result) result = fail(Code::kInternal, result.error().message());
        std::exchange(done_, nullptr)(std::move(result));
    }

    EventLoop& loop_;
    const std::vector<HookList> lists_;
    hooks::HookContext context_;
    std::shared_ptr<ServiceGroup> services_;
    const std::shared_ptr<const bool> cancelled_;
    UniqueFd network_;
    size_t list_ = 0, hook_ = 0;  // the next one
    std::function<void(Result<>)> done_;
};

}  // namespace

bool hasService(const spec::Hooks& hooks) {
    return std::any_of(hooks.prestart.begin(), hooks.prestart.end(), isService) ||
           std::any_of(hooks.createRuntime.begin(), hooks.createRuntime.end(), isService);
}

Result<> GuestHooks::addFromFolder(spec::Spec& spec) const {
    if (!config_.folder.empty()) {
        ARCA_TRY(const auto files, hooks::loadHooksDir(config_.folder));
        hooks::addMatchingHooks(files, spec);
    }
    std::set<std::string> names;
    for (const auto* list : {&spec.hooks.prestart, &spec.hooks.createRuntime}) {
        for (const spec::Hook& hook : *list) {
            if (!isService(hook) || names.insert(hook.service->name).second) continue;
            return fail(Code::kInvalidArgument,
                        "hooks: two services have the name " + hook.service->name);
        }
    }
    return {};
}

std::shared_ptr<ServiceGroup> GuestHooks::makeGroup(const std::string& container_id,
                                                    const spec::Hooks& hooks,
                                                    const CgroupDirs& cgroup) const {
    if (!hasService(hooks)) return nullptr;
    return std::make_shared<ServiceGroup>(services_, container_id, cgroup);
}

hooks::HookContext GuestHooks::contextFor(const spec::State& state) const {
    return {.kind = "",
            .state = state,
            .cwd = "/",
            .default_env = environmentFor(services_.environment.all(), state.id),
            .cgroup_procs = config_.cgroup_procs,
            .plain_oom_score = true};
}

void GuestHooks::run(HookRun run, std::function<void(Result<>)> done) const {
    hooks::HookContext context = contextFor(run.state);
    std::make_shared<Sequence>(services_.loop, std::move(run), std::move(context), std::move(done))
        ->start();
}

void GuestHooks::runAll(HookList list, const spec::State& state, std::function<void()> done) const {
    hooks::HookContext context = contextFor(state);
    context.kind = list.kind;
    std::thread([&loop = services_.loop, list = std::move(list), context = std::move(context),
                 done = std::move(done)]() mutable {
        hooks::runAllHooks(list.hooks, context, [&context](const base::Error& error) {
            base::log::warning(error.message() + " container=" + context.state.id);
        });
        loop.post(std::move(done));
    }).detach();
}

}  // namespace arca::vminitd
