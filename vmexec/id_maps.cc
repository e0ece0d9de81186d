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
#include "base/strings.h"
#include "base/subprocess.h"
#include "vmexec/exec_lookup.h"

namespace arca::vmexec {

using base::fail;
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

// newuidmap(1) or newgidmap(1): has the privilege, and a file that says which ids are whose.
Result<> writeMapByHelper(pid_t pid, const std::string& helper,
                          const std::vector<spec::IdMapping>& map) {
    base::Command command;
    for (char** entry = environ; *entry != nullptr; ++entry) command.env.emplace_back(*entry);
    auto path = findProgram(helper, command.env);
    if (!path) {
        return fail(std::move(path).error().withContext("map several ids without privilege"));
    }
    command.path = std::move(*path);
    command.args = {helper, std::to_string(pid)};
    for (const spec::IdMapping& entry : map) {
        for (const uint32_t number : {entry.containerID, entry.hostID, entry.size}) {
            command.args.push_back(std::to_string(number));
        }
    }
    ARCA_TRY(const base::Outcome outcome, base::runCommand(command));
    if (outcome.exit_code == 0) return {};
    return fail(base::Code::kPermissionDenied,
                helper + ": " + base::printable(std::string(base::trim(outcome.err))), EPERM);
}

// Whether the kernel lets a user without privilege write it.
bool isOwnIdAlone(const std::vector<spec::IdMapping>& map, uint32_t own) {
    return map.size() == 1 && map.front().size == 1 && map.front().hostID == own;
}

Result<> writeGidMap(pid_t pid, const std::string& dir, const std::vector<spec::IdMapping>& gids) {
    auto written = writeMap(dir, "gid_map", gids);
    if (written || written.error().sysErrno() != EPERM) return written;
    if (!isOwnIdAlone(gids, ::getegid())) return writeMapByHelper(pid, "newgidmap", gids);
    ARCA_CHECK(base::writeControlFile(AT_FDCWD, dir + "setgroups", "deny"));
    return writeMap(dir, "gid_map", gids);
}

Result<> writeUidMap(pid_t pid, const std::string& dir, const std::vector<spec::IdMapping>& uids) {
    auto written = writeMap(dir, "uid_map", uids);
    if (written || written.error().sysErrno() != EPERM || isOwnIdAlone(uids, ::geteuid())) {
        return written;
    }
    return writeMapByHelper(pid, "newuidmap", uids);
}

}  // namespace

Result<> writeIdMaps(pid_t pid, const std::vector<spec::IdMapping>& uids,
                     const std::vector<spec::IdMapping>& gids) {
    const std::string dir = "/proc/" + std::to_string(pid) + "/";
    ARCA_CHECK(writeGidMap(pid, dir, gids));
    return writeUidMap(pid, dir, uids);
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
