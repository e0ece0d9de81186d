// The loopback interface of a new network namespace.
#pragma once

#include "base/result.h"

namespace arca::vmexec {

// Sets `lo` up in the caller's network namespace. Source: runtime-spec's default for a private
// network namespace; netdevice(7).
base::Result<> bringUpLoopback();

}  // namespace arca::vmexec
