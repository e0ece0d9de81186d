// One supervised hook service: a program that the agent keeps running beside a container.
//
// It has a session and a cgroup of its own, outside the agent's and the container's. The agent
// forks it from its main thread, so that the supervisor (supervisor.h) tells its end. Loop thread
// only.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "spec/spec.h"
#include "vminitd/cgroup.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"
#include "vminitd/service_log.h"
#include "vminitd/supervisor.h"

namespace arca::vminitd {

// What all services of an agent share; everything must outlive them.
struct ServiceHost {
    EventLoop& loop;
    Supervisor& supervisor;
    CgroupManager& cgroups;
    base::Transport& transport;  // whose ports a service can be ready on
    const Environment& environment;
    std::string cgroup_prefix;  // <prefix>/<container>/<name> is a service's
};

struct ServicePlan {
    std::string container_id;
    spec::Hook hook;             // with `service`
    std::string state;           // the container's, for stdin
    CgroupDirs cgroup;           // of its own, to be made
    int network_namespace = -1;  // joined; -1: the agent's. Borrowed while start() runs
};

// The end of a service that nobody asked for.
struct ServiceEnd {
    std::string name;
    int exit_code = 0;   // low 8 bits, or 128 + signal
    bool kills = false;  // the container goes with it
    // "exit status 1", or with a signal's name; and its last lines.
    std::string reason;
};

class Service : public std::enable_shared_from_this<Service> {
 public:
    // The number and the variable of the descriptor on which one with `ready.fd` writes a newline.
    static constexpr int kReadyFd = 3;
    static constexpr std::chrono::seconds kReadyLimit{30};  // of a hook without a timeout

    Service(const ServiceHost& host, ServicePlan plan);

    // Executes it and calls `ready` once: when it is ready, or with the reason and its last lines
    // when it ends before that, cannot be executed or takes too long. Then nothing is left of it.
    void start(std::function<void(base::Result<>)> ready);
    // The stop signal to the program; what is left of it after the time that it has, or after its
    // end, is killed. Calls `done` when all is gone; at once when it was.
    void stop(std::function<void()> done);
    // What to call when it ends after it was ready, and was not asked to. Its children are killed.
    void onEnd(std::function<void(const ServiceEnd&)> ended) { ended_ = std::move(ended); }

    [[nodiscard]] const std::string& name() const { return plan_.hook.service->name; }

 private:
    enum class State { kStarting, kReady, kOver };

    base::Result<> launch();
    base::Result<> execute(int in, int out, int ready);
    [[nodiscard]] std::vector<std::string> environment() const;
    base::Result<> watchOutput();
    void awaitReadiness();
    void look(std::chrono::milliseconds pause);
    base::Result<bool> answers();
    void readReadyFd();
    void becomeReady();
    void failStart(base::Error error);
    void exited(int code);
    void readOutput();
    [[nodiscard]] base::Error withTail(base::Error error) const;
    // Kills and removes all of the cgroup, then calls `done`.
    void cleanUp(std::function<void()> done);
    void stopped();

    const ServiceHost& host_;
    ServicePlan plan_;
    ServiceLog log_;
    State state_ = State::kStarting;
    bool running_ = false;
    bool stopping_ = false;
    bool said_nothing_ = false;  // it closed its descriptor of readiness without a word
    base::UniqueFd pidfd_, output_, ready_fd_;
    Watch output_watch_, ready_watch_;
    Timer limit_, look_timer_;
    std::function<void(base::Result<>)> ready_;
    std::function<void(const ServiceEnd&)> ended_;
    std::vector<std::function<void()>> stopped_;
};

}  // namespace arca::vminitd
