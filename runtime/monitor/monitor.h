// The monitor of one sandbox: owns the VM (or the connection to somebody else's), relays stdio,
// waits for processes, and cleans up after any death. DESIGN: "The stand-in".
//
// Everything happens on the loop's thread; one more thread dials the guest while it boots, and
// each copy into it has one. The
// guest is hostile, the commands on attach.sock are root's own.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "runtime/monitor/attach_session.h"
#include "runtime/monitor/config.h"
#include "runtime/monitor/grpc_channel.h"
#include "runtime/monitor/guest_network.h"
#include "runtime/monitor/guest_process.h"
#include "runtime/monitor/machine.h"
#include "runtime/monitor/network_card.h"
#include "runtime/monitor/share.h"
#include "runtime/monitor/tree_copy.h"

namespace arca::runtime {

class Monitor {
 public:
    // `dir`: the sandbox's folder; `listener`: its attach.sock.
    Monitor(base::EventLoop& loop, MonitorConfig config, base::UniqueFd dir,
            base::UniqueFd listener);
    ~Monitor();

    // Starts the VM and begins to serve. run the loop afterwards; it stops when all is over.
    base::Result<> start();
    // start() failed: whoever comes is told why, and then the loop stops.
    void giveUp(const base::Error& why) { lose(why.message()); }

    // ---- for sessions ----
    // Calls `then` once the guest answers, or with why it never will.
    void whenReady(std::function<void(const base::Result<>&)> then);
    base::Result<> share(const std::string& container, const std::string& name, int tree);
    // Whether the guest sees what share() is given.
    [[nodiscard]] bool shares() const { return share_.has_value(); }
    // Begins to copy a tree into the guest.
    base::Result<std::shared_ptr<TreeCopy>> copy(TreeCopyRequest request, TreeCopy::Done done);
    base::Result<std::shared_ptr<GuestProcess>> makeProcess(GuestProcessRequest request);
    // Undoes makeProcess() of a command that gave up or died.
    void takeBack(const std::shared_ptr<GuestProcess>& process);
    // The container's network is what is in `name_space`: see guest_network.h. Later calls for the
    // same container look again. `then` as of GuestNetwork::attach().
    base::Result<> attachNetwork(const std::string& container, base::UniqueFd name_space,
                                 std::function<void(base::Result<size_t>)> then);
    void release(const std::string& container, const std::shared_ptr<AttachSession>& session);
    void drop(AttachSession& session);

 private:
    enum class State { kBooting, kReady, kLost, kLeaving };
    using Answer = std::function<void(const base::Result<>&)>;

    base::Result<> serve();
    void acceptSession();
    void makeCard();
    base::Result<> startMachine();
    // The address of the guest that is to be booted; takes the kernel's device, if there is one.
    base::Result<std::string> takeVsock();
    void machineFailed(const std::string& why);
    // KVM does not boot the guest: once more, without it.
    void fallBack(const std::string& why);
    void dial(std::chrono::milliseconds limit);
    void dialled(base::Result<base::UniqueFd> connection);
    // ---- setting the guest up, one call after the other ----
    void setUpGuest();
    void setTime();
    void mountShare();
    void guestIsReady();
    template <typename Response, typename Request>
    void setUpCall(const char* path, const Request& request, std::function<void()> next);

    void lose(const std::string& why);
    void over(GuestProcess& process);
    std::optional<uint32_t> nextPort();
    // Leaves when nobody needs the sandbox any more.
    void leaveIfUnused();
    void leave();
    void finish();

    base::EventLoop& loop_;
    MonitorConfig config_;
    base::UniqueFd dir_;
    base::UniqueFd listener_;
    base::Watch listener_watch_;
    State state_ = State::kBooting;
    std::optional<base::Error> failure_;  // of kLost
    std::optional<Share> share_;
    std::unique_ptr<KernelVsock> vsock_;
    std::unique_ptr<NetworkCard> card_;
    std::unique_ptr<base::Transport> transport_;
    std::unique_ptr<Machine> machine_;
    bool proving_ = false;  // whether KVM works; until the guest answers
    base::Timer proof_timer_;
    std::unique_ptr<GrpcChannel> channel_;
    std::thread dialler_;
    std::atomic<bool> stop_dialling_{false};
    std::vector<Answer> waiting_;
    std::set<std::shared_ptr<AttachSession>> sessions_;
    std::set<std::shared_ptr<GuestProcess>> processes_;
    std::set<std::string> containers_;  // which have something in the guest
    std::map<std::string, std::unique_ptr<GuestNetwork>> networks_;  // by container
    std::vector<std::shared_ptr<AttachSession>> releasing_;
    uint32_t next_port_ = base::kFirstStdioPort;
    base::Timer time_timer_;
    base::Timer idle_timer_;
    base::Timer leave_timer_;
    base::Timer lost_timer_;
};

}  // namespace arca::runtime
