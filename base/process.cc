#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/process_stat.h"
#include "base/socket.h"
#include "base/strings.h"

namespace arca::base {
namespace {

// include/uapi/linux/pidfd.h of Linux 6.15; Debian 12's headers are older.
struct PidfdInfo {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
    uint32_t coredump_mask;
    uint32_t spare;
};
constexpr uint64_t kPidfdInfoExit = 1ULL << 3U;
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);

}  // namespace

Result<uint64_t> processStartTime(pid_t pid) {
    ARCA_TRY(const ProcessStat stat, readProcessStat(pid));
    return stat.start_time_ticks;
}

bool isAlive(const ProcessIdentity& identity) {
    if (identity.pid <= 0) return false;
    const auto stat = readProcessStat(identity.pid);
    if (!stat || stat->start_time_ticks != identity.start_time_ticks) return false;
    return stat->state != 'Z' && stat->state != 'X';
}

bool inUserNamespace() {
    const auto map = readFile("/proc/self/uid_map", 4096);
    if (!map) return false;
    std::vector<std::string_view> numbers;
    for (const std::string_view part : split(trim(*map), ' ')) {
        if (!part.empty()) numbers.push_back(part);
    }
    return !(numbers.size() == 3 && numbers[0] == "0" && numbers[1] == "0" &&
             numbers[2] == "4294967295");
}

Result<UniqueFd> openPidfd(pid_t pid) {
    UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (fd.valid()) return fd;
    const std::string what = "open pidfd of process " + std::to_string(pid);
    if (errno == ESRCH) return fail(Code::kNotFound, what + ": no such process", ESRCH);
    return failErrno(what);
}

Result<UniqueFd> openPidfd(const ProcessIdentity& identity) {
    ARCA_TRY(UniqueFd fd, openPidfd(identity.pid));
    const auto start = processStartTime(identity.pid);
    if (!start || *start != identity.start_time_ticks) {
        return fail(Code::kNotFound,
                    "process " + std::to_string(identity.pid) + ": no such process", ESRCH);
    }
    return fd;
}

Result<> sendSignal(int pidfd, int signal_number) {
    if (::syscall(SYS_pidfd_send_signal, pidfd, signal_number, nullptr, 0) == 0) return {};
    if (errno == ESRCH) return fail(Code::kNotFound, "send signal: no such process", ESRCH);
    return failErrno("send signal " + std::to_string(signal_number));
}

Result<bool> waitExit(int pidfd, std::optional<std::chrono::milliseconds> timeout) {
    return waitReadable(pidfd, timeout);
}

int exitCodeFromWaitStatus(int wait_status) {
    if (WIFSIGNALED(wait_status)) return 128 + WTERMSIG(wait_status);
    return WEXITSTATUS(wait_status);
}

Result<int> reapChild(pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) != pid) {
        if (errno != EINTR) return failErrno("wait for process " + std::to_string(pid));
    }
    return exitCodeFromWaitStatus(status);
}

std::optional<int> exitCodeOf(int pidfd) {
    PidfdInfo info{};
    info.mask = kPidfdInfoExit;
    if (::ioctl(pidfd, kPidfdGetInfo, &info) != 0) return std::nullopt;
    if ((info.mask & kPidfdInfoExit) == 0) return std::nullopt;
    return exitCodeFromWaitStatus(info.exit_code);
}

}  // namespace arca::base
