// vmexec's end of the conversation in proto/body_protocol.h: the sync socket, later one connection
// of the gate.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "proto/body_protocol.h"

namespace arca::vmexec {

class Channel {
 public:
    struct Received {
        proto::BodyMessage type;
        int32_t value;
        std::string text;
        std::vector<base::UniqueFd> fds;
    };

    Channel() = default;
    explicit Channel(base::UniqueFd socket) : socket_(std::move(socket)) {}

    [[nodiscard]] int fd() const { return socket_.get(); }

    // Sends one message; `fd` (borrowed) goes with it unless -1. kUnavailable: the agent is gone.
    base::Result<> send(proto::BodyMessage type, int32_t value = 0, std::string_view text = {},
                        int fd = -1) const;

    // Waits for one message of `type`; `name` is its name in errors. Fails with kUnavailable at end
    // of file, which means that the agent gave up, and with kInternal on any other message. With
    // `signal_fd` (see signals.h) a deadly signal ends the process meanwhile.
    [[nodiscard]] base::Result<Received> expect(proto::BodyMessage type, std::string_view name,
                                                int signal_fd = -1) const;

    // What the specification calls a warning. A lost one is no failure.
    void warn(std::string_view text) const;

    // Reports `error` and leaves with status 1.
    [[noreturn]] void die(const base::Error& error) const;

    void close() { socket_.reset(); }

 private:
    base::UniqueFd socket_;
};

}  // namespace arca::vmexec
