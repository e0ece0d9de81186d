// The agent's thread: base/event_loop.h under the agent's own names.
//
// Everything that the agent knows is touched by this thread only. gRPC's threads call post() and
// nothing more.
#pragma once

#include "base/event_loop.h"

namespace arca::vminitd {

using base::EventLoop;
using base::retryUntil;
using base::Timer;
using base::Watch;

}  // namespace arca::vminitd
