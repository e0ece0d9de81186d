#include "runtime/monitor/ports.h"

#include <cerrno>
#include <utility>

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

Result<ListeningPort> listenOnFreePort(base::Transport& transport,
                                       const std::function<std::optional<uint32_t>()>& next_port) {
    constexpr int kTries = 64;
    for (int i = 0; i < kTries; ++i) {
        const auto port = next_port();
        if (!port) break;
        auto listener = transport.listen(*port);
        if (listener) return ListeningPort{*port, std::move(*listener)};
        if (listener.error().sysErrno() != EADDRINUSE) return fail(std::move(listener).error());
    }
    return fail(Code::kUnavailable, "no free port");
}

}  // namespace arca::runtime
