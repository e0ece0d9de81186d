#include "vminitd/service_group.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "vminitd/cgroup_removal.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::Result;

namespace {

constexpr std::chrono::milliseconds kRemovalLimit{2'000};

std::string shownName(const std::string& stage, const spec::Hook& hook) {
    std::string text = stage + " service " + hook.service->name;
    if (!hook.file.empty()) text += " (" + base::printable(hook.file) + ")";
    return text;
}

}  // namespace

void ServiceGroup::start(const std::string& stage, const spec::Hook& hook, const std::string& state,
                         int network_namespace, std::function<void(Result<>)> done) {
    const std::string context = "error starting " + shownName(stage, hook);
    if (closed_) {
        return done(fail(Code::kFailedPrecondition, context + ": the container is being removed"));
    }
    ServicePlan plan{container_id_, hook, state, cgroup_, network_namespace};
    for (CgroupDir& dir : plan.cgroup) {
        dir.path += "/" + hook.service->name;
        dir.made = true;
    }
    auto service = std::make_shared<Service>(host_, std::move(plan));
    services_.push_back(service);
    service->onEnd([weak = weak_from_this()](const ServiceEnd& end) {
        const auto group = weak.lock();
        if (!group) return;
        group->ends_.push_back(end);
        if (group->ended_) group->ended_(end);
    });
    service->start([self = shared_from_this(), raw = service.get(), context,
                    done = std::move(done)](Result<> ready) {
        if (ready) return done({});
        std::erase_if(self->services_, [raw](const auto& one) { return one.get() == raw; });
        done(fail(std::move(ready).error().withContext(context)));
    });
}

void ServiceGroup::stop(std::function<void()> done) {
    closed_ = true;
    stopped_.push_back(std::move(done));
    if (stopped_.size() == 1) stopNext();
}

void ServiceGroup::stopNext() {
    if (services_.empty()) {
        for (const auto& done : std::exchange(stopped_, {})) done();
        return;
    }
    const auto service = services_.back();
    service->stop([self = shared_from_this(), raw = service.get()] {
        std::erase_if(self->services_, [raw](const auto& one) { return one.get() == raw; });
        self->stopNext();
    });
}

void removeServiceCgroup(EventLoop& loop, CgroupManager& cgroups, const CgroupDirs& cgroup,
                         std::function<void(Result<>)> done) {
    if (cgroup.empty()) return done({});
    removeCgroup(loop, cgroups, cgroup, kRemovalLimit,
                 [path = cgroup.front().path, done = std::move(done)](const Result<bool>& gone) {
                     if (gone && *gone) return done({});
                     done(fail(Code::kInternal, path + ": still in use"));
                 });
}

}  // namespace arca::vminitd
