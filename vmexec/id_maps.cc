#include "vmexec/id_maps.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/files.h"
#include "base/process.h"
#include "base/scope_exit.h"

namespace arca::vmexec {

using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

std::string mapText(const std::vector<spec::IdMapping>& map) {
    std::string text;
    for (const spec::IdMapping& entry : map) {
        text += std::to_string(entry.containerID) + " " + std::to_string(entry.hostID) + " " +
                std::to_string(entry.size) + "\n";
    }
    return text;
}

Result<> writeMap(const std::string& dir, const char* name,
                  const std::vector<spec::IdMapping>& map) {
    if (map.empty()) return {};
    return base::writeControlFile(AT_FDCWD, dir + name, mapText(map));
}

}  // namespace

Result<> writeIdMaps(pid_t pid, const std::vector<spec::IdMapping>& uids,
                     const std::vector<spec::IdMapping>& gids) {
    const std::string dir = "/proc/" + std::to_string(pid) + "/";
    auto gid_map = writeMap(dir, "gid_map", gids);
    if (!gid_map && gid_map.error().sysErrno() == EPERM) {
        ARCA_CHECK(base::writeControlFile(AT_FDCWD, dir + "setgroups", "deny"));
        gid_map = writeMap(dir, "gid_map", gids);
    }
    ARCA_CHECK(std::move(gid_map));
    return writeMap(dir, "uid_map", uids);
}

Result<UniqueFd> makeUserNamespace(const std::vector<spec::IdMapping>& uids,
                                   const std::vector<spec::IdMapping>& gids) {
    clone_args args{};
    args.flags = CLONE_NEWUSER;
    args.exit_signal = SIGCHLD;
    const long pid = ::syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) return failErrno("make user namespace for id mapping");
    if (pid == 0) {
        // CHILD SIDE: only there to hold the namespace until it is killed.
        while (true) (void)::pause();
    }
    const base::ScopeExit reap([pid] {
        (void)::kill(static_cast<pid_t>(pid), SIGKILL);
        (void)base::reapChild(static_cast<pid_t>(pid));
    });
    ARCA_CHECK(writeIdMaps(static_cast<pid_t>(pid), uids, gids));
    return base::openAt(AT_FDCWD, "/proc/" + std::to_string(pid) + "/ns/user", O_RDONLY);
}

}  // namespace arca::vmexec
