// Ports of the host that a guest is to dial.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.h"
#include "base/transport.h"

namespace arca::runtime {

struct ListeningPort {
    uint32_t number = 0;
    std::unique_ptr<base::Listener> listener;
};

// Listens on the first port of `next_port` that nobody has. kUnavailable when there is none.
base::Result<ListeningPort> listenOnFreePort(
    base::Transport& transport, const std::function<std::optional<uint32_t>()>& next_port);

}  // namespace arca::runtime
