#include "vmexec/keyring.h"

#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace arca::vmexec {

using base::failErrno;
using base::Result;

namespace {

// What the kernel gives a new session keyring (everything for the possessor; view, read and link
// for the user), and search for the user, by which an exec finds it.
constexpr unsigned kPermissions = 0x3f1b0000U;

}  // namespace

Result<> joinSessionKeyring(const std::string& container_id) {
    const std::string name = "_ses." + container_id;
    const long key = ::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.c_str());
    if (key < 0) return failErrno("join session keyring " + name);
    // Refused when the keyring was made by another user of the container: then it is as it should.
    (void)::syscall(SYS_keyctl, KEYCTL_SETPERM, key, kPermissions);
    return {};
}

}  // namespace arca::vmexec
