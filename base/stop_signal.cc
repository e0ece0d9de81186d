#include "base/stop_signal.h"

#include <sys/eventfd.h>

namespace arca::base {

StopSignal::StopSignal() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

bool StopSignal::set() {
    const bool first = !set_.exchange(true, std::memory_order_acq_rel);
    (void)::eventfd_write(event_.get(), 1);
    return first;
}

}  // namespace arca::base
