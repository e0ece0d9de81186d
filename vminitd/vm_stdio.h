// The streams of one process in a VM: dialled to the host, piped to the process.
//
// Order of things: dial() before anything is made, then pipes() (or, for a process with a terminal,
// useTerminal() once it has one). Every stream is a pump of its own, so that a reader that stops
// stalls nothing else. Loop thread only.
#pragma once

#include <functional>
#include <memory>

#include "base/pump.h"
#include "base/result.h"
#include "base/transport.h"
#include "base/unique_fd.h"
#include "vminitd/body.h"
#include "vminitd/event_loop.h"

namespace arca::vminitd {

class VmStdio : public ProcessIo, public std::enable_shared_from_this<VmStdio> {
 public:
    // How long the host may take to accept one stream.
    static constexpr std::chrono::milliseconds kDialLimit{5'000};
    // How long a reader may hold up the news of a process's end.
    static constexpr std::chrono::milliseconds kDrainLimit{1'000};

    using Dialled = std::function<void(base::Result<std::shared_ptr<VmStdio>>)>;
    // Connects to the ports that are there, stdin, stdout and stderr in this order, one after the
    // other. Of a process with a terminal, stderr's is left alone. kInternal ("could not connect to
    // ...") when one refuses or takes too long; then none is left open.
    static void dial(EventLoop& loop, base::Transport& transport, const StdioPorts& ports,
                     bool terminal, Dialled dialled);

    ~VmStdio() override;

    // The process's own ends; what has no port is /dev/null. All are 3 or higher.
    struct ChildEnds {
        base::UniqueFd in, out, err;
    };
    base::Result<ChildEnds> pipes();

    // `master`: borrowed; becomes non-blocking.
    base::Result<> useTerminal(int master);

    base::Result<> resize(TerminalSize size) override;
    void closeStdin() override;
    void processExited(std::function<void()> closed) override;
    void abandon() override;

 private:
    VmStdio(EventLoop& loop, bool terminal) : loop_(loop), terminal_(terminal) {}
    struct Dial;
    enum Stream : size_t { kIn, kOut, kErr, kStreams };

    void startPump(Stream stream, base::UniqueFd from, base::UniqueFd to,
                   base::Pump::Hangup hangup);
    void pumpEnded(Stream stream);
    void reportClosed();

    EventLoop& loop_;
    const bool terminal_;
    base::UniqueFd sockets_[kStreams];  // until their pumps have them
    std::shared_ptr<base::Pump> pumps_[kStreams];
    base::UniqueFd master_;
    std::function<void()> closed_;
    Timer drain_timer_;
};

}  // namespace arca::vminitd
