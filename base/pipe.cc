#include "base/pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace arca::base {

Result<Pipe> makePipe() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC) != 0) return failErrno("make a pipe");
    Pipe pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
    for (UniqueFd* end : {&pipe.read_end, &pipe.write_end}) {
        if (end->get() > 2) continue;
        UniqueFd moved(::fcntl(end->get(), F_DUPFD_CLOEXEC, 3));
        if (!moved.valid()) return failErrno("move a descriptor");
        *end = std::move(moved);
    }
    return pipe;
}

}  // namespace arca::base
