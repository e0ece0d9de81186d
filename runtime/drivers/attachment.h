// A command's connection to the monitor of a sandbox: proto/monitor_protocol.h.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "proto/monitor_protocol.h"
#include "runtime/signals.h"

namespace arca::runtime {

class Attachment {
 public:
    // `signals` (borrowed, may be null): an interrupt there ends every wait with an error.
    Attachment(base::UniqueFd socket, const SignalInbox* signals)
        : socket_(std::move(socket)), signals_(signals) {}

    [[nodiscard]] int fd() const { return socket_.get(); }

    base::Result<> send(proto::MonitorMessage type, std::string_view text = {},
                        const std::vector<int>& fds = {});

    // Waits for the answer of this type and gives its text. kUnavailable with the monitor's reason
    // when it fails or is gone.
    base::Result<std::string> await(proto::MonitorMessage type, std::chrono::milliseconds limit);

    // For a watch: the monitor speaks unasked only to say that it failed.
    base::Result<> receiveUnasked();

 private:
    base::Result<> waitReadable(std::chrono::steady_clock::time_point deadline);

    base::UniqueFd socket_;
    const SignalInbox* signals_;
};

}  // namespace arca::runtime
