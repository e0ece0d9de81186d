// The hook services of one container, started in the order of its hooks and stopped in the reverse.
//
// Made with the container, closed when it is removed: what has not been started by then never is.
// Loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"
#include "vminitd/service.h"

namespace arca::vminitd {

class ServiceGroup : public std::enable_shared_from_this<ServiceGroup> {
 public:
    // `cgroup`: the group's own, in which each service gets one.
    ServiceGroup(const ServiceHost& host, std::string container_id, CgroupDirs cgroup)
        : host_(host), container_id_(std::move(container_id)), cgroup_(std::move(cgroup)) {}

    // What to call when a service ends by itself.
    void onEnd(std::function<void(const ServiceEnd&)> ended) { ended_ = std::move(ended); }

    // Starts `hook`, which is a service, and calls `done` when it is ready, or with what went wrong
    // ("error starting createRuntime service tap: ..."). `network_namespace` is borrowed while this
    // runs.
    void start(const std::string& stage, const spec::Hook& hook, const std::string& state,
               int network_namespace, std::function<void(base::Result<>)> done);

    // Stops all, one after the other, the last one first; then calls `done`. May be called again.
    void stop(std::function<void()> done);

    // Ends so far that nobody had asked for, oldest first.
    [[nodiscard]] const std::vector<ServiceEnd>& ends() const { return ends_; }

 private:
    void stopNext();

    const ServiceHost& host_;
    std::string container_id_;
    CgroupDirs cgroup_;
    bool closed_ = false;
    std::vector<std::shared_ptr<Service>> services_;
    std::vector<ServiceEnd> ends_;
    std::function<void(const ServiceEnd&)> ended_;
    std::vector<std::function<void()>> stopped_;
};

// Kills and removes what is in the cgroup of a group that is gone, or was another agent's; `done`
// gets kInternal when something is still there. Nothing to do for an empty `cgroup`.
void removeServiceCgroup(EventLoop& loop, CgroupManager& cgroups, const CgroupDirs& cgroup,
                         std::function<void(base::Result<>)> done);

}  // namespace arca::vminitd
