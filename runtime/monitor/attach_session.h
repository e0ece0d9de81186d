// One command's connection to the monitor: proto/monitor_protocol.h.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "proto/monitor_protocol.h"
#include "runtime/monitor/guest_process.h"
#include "runtime/monitor/tree_copy.h"

namespace arca::runtime {

class Monitor;

// Loop thread only. Owned by the Monitor until it drops it.
class AttachSession : public std::enable_shared_from_this<AttachSession> {
 public:
    AttachSession(Monitor& monitor, base::UniqueFd socket);

    base::Result<> start(base::EventLoop& loop);
    // Tells the command why it gets no further, and ends.
    void fail(const std::string& why);
    // The answer to kRelease.
    void released();
    // The guest will not answer any more: says why to a command that waits for a copy into it.
    void sandboxLost(const std::string& why);
    // Somebody else ends the conversation (the monitor goes).
    void close();

 private:
    struct SharedTree {
        std::string name;
        base::UniqueFd fd;
    };
    void receive();
    base::Result<> handle(const proto::MonitorPacket& packet, std::vector<base::UniqueFd> fds);
    base::Result<> attach(std::string_view json, std::vector<base::UniqueFd> fds);
    base::Result<> prepare();
    base::Result<> attachNetwork(const std::string& container, std::vector<base::UniqueFd> fds);
    base::Result<> copy(std::string_view json);
    void copied(const base::Result<archive::Packed>& packed);
    void takeBack(const std::shared_ptr<GuestProcess>& process);
    base::Result<> send(proto::MonitorMessage type, std::string_view text = {});

    Monitor& monitor_;
    base::UniqueFd socket_;
    base::Watch watch_;
    std::unique_ptr<GuestProcessRequest> request_;
    std::vector<SharedTree> trees_;
    std::shared_ptr<TreeCopy> copy_;
    std::shared_ptr<GuestProcess> process_;
};

}  // namespace arca::runtime
