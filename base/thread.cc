#include "base/thread.h"

#include <system_error>
#include <utility>

#include "base/exec_child.h"

namespace arca::base {

Result<std::thread> startThread(std::function<void()> work) {
    try {
        const SignalsBlocked blocked;
        return std::thread(std::move(work));
    } catch (const std::system_error& error) {
        return failErrno("start a thread", error.code().value());
    }
}

}  // namespace arca::base
