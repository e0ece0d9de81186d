#include "base/unique_fd.h"

#include <unistd.h>

#include <cerrno>

namespace arca::base {

void UniqueFd::reset(int fd) noexcept {
    const int old = std::exchange(fd_, fd);
    if (old < 0 || old == fd) return;
    const int saved = errno;
    (void)::close(old);
    errno = saved;
}

}  // namespace arca::base
