#include "vmexec/seccomp.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <limits>

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

Result<UniqueFd> loadSeccomp(std::string_view program, uint32_t flags, SeccompListener listener) {
    const size_t count = program.size() / sizeof(sock_filter);
    if (program.size() % sizeof(sock_filter) != 0 ||
        count > std::numeric_limits<unsigned short>::max())
        return fail(Code::kInternal, "load seccomp filter: not a program");
    sock_fprog filter{};
    filter.len = static_cast<unsigned short>(count);
    // The kernel copies it and asks for no alignment.
    filter.filter = reinterpret_cast<sock_filter*>(const_cast<char*>(
        program.data()));  // NOLINT(cppcoreguidelines-pro-type-const-cast): the ABI's type
    if (listener == SeccompListener::kYes) flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
    if (result < 0) return failErrno("load seccomp filter");
    return UniqueFd(listener == SeccompListener::kYes ? static_cast<int>(result) : -1);
}

}  // namespace arca::vmexec
