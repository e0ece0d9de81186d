#include "runtime/drivers/sandbox_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <ctime>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "base/socket.h"
#include "base/strings.h"
#include "proto/monitor_protocol.h"
#include "runtime/programs.h"
#include "runtime/spawn_detached.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr char kFolder[] = "@vm";  // '@' cannot begin a container id
constexpr char kLockFile[] = "lock";
constexpr char kLogFile[] = "monitor.log";

// Its monitor holds this lock for as long as it lives.
Result<UniqueFd> takeLock(int dir_fd, std::chrono::milliseconds patience) {
    ARCA_TRY(UniqueFd fd, base::openAt(dir_fd, kLockFile, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    const auto deadline = std::chrono::steady_clock::now() + patience;
    const timespec pause{0, 5'000'000};
    while (true) {
        if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
        if (errno != EWOULDBLOCK && errno != EINTR) return failErrno("lock the sandbox's folder");
        if (std::chrono::steady_clock::now() >= deadline) {
            return fail(Code::kUnavailable,
                        "the sandbox's monitor is starting or leaving, and "
                        "does not get on");
        }
        (void)::nanosleep(&pause, nullptr);
    }
}

Result<> spawnMonitor(const Program& program, UniqueFd listener, int dir_fd, int lock_fd,
                      UniqueFd log, const std::string& title) {
    DetachedProgram monitor{
        program.path,
        {"arca-monitor", "--listener-fd", "3", "--dir-fd", "4", "--lock-fd", "5", "--title", title},
        {},
        std::move(log)};
    monitor.fds.push_back(std::move(listener));
    for (const int fd : {dir_fd, lock_fd}) {
        monitor.fds.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
        if (!monitor.fds.back().valid()) return failErrno("duplicate a descriptor");
    }
    return startDetached(std::move(monitor));
}

}  // namespace

SandboxFolder::SandboxFolder(int root_fd, const std::string& sandbox_id)
    : root_fd_(root_fd), path_(std::string(kFolder) + "/" + base::fnv1aHex(sandbox_id)) {}

Result<> SandboxFolder::open() {
    if (dir_.valid()) return {};
    ARCA_TRY(dir_, base::openAt(root_fd_, path_, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    return {};
}

Result<UniqueFd> SandboxFolder::connect() {
    auto opened = open();
    if (!opened) {
        if (opened.error().sysErrno() == ENOENT) {
            return fail(Code::kUnavailable, "the sandbox is gone");
        }
        return fail(std::move(opened).error());
    }
    auto connection = base::connectUnix(dir_.get(), proto::kMonitorAttachSocket, SOCK_SEQPACKET);
    if (connection || connection.error().code() != Code::kUnavailable) return connection;
    const std::string why = failure();
    return fail(Code::kUnavailable,
                why.empty() ? "the sandbox's monitor is gone" : "the sandbox was lost: " + why);
}

Result<UniqueFd> SandboxFolder::connectOrLaunch(const MonitorConfig& config) {
    // Another command may be removing the upper folder just now.
    constexpr int kTries = 100;
    for (int i = 0; i < kTries; ++i) {
        for (const std::string& part : {std::string(kFolder), path_}) {
            if (::mkdirat(root_fd_, part.c_str(), 0700) != 0 && errno != EEXIST &&
                errno != ENOENT) {
                return failErrno("mkdir " + part);
            }
        }
        auto opened = open();
        if (opened) break;
        if (opened.error().sysErrno() != ENOENT || i + 1 == kTries) return fail(opened.error());
    }
    auto connection = base::connectUnix(dir_.get(), proto::kMonitorAttachSocket, SOCK_SEQPACKET);
    if (connection || connection.error().code() != Code::kUnavailable) return connection;
    return launch(config);
}

Result<UniqueFd> SandboxFolder::launch(const MonitorConfig& config) {
    constexpr std::chrono::seconds kPatience{15};
    ARCA_TRY(const Program program, findProgram("arca-monitor"));
    ARCA_TRY(const UniqueFd lock, takeLock(dir_.get(), kPatience));
    // Another command may have been quicker.
    auto connection = base::connectUnix(dir_.get(), proto::kMonitorAttachSocket, SOCK_SEQPACKET);
    if (connection || connection.error().code() != Code::kUnavailable) return connection;
    for (const char* name : {proto::kMonitorFailureFile, proto::kMonitorAddressFile}) {
        (void)::unlinkat(dir_.get(), name, 0);
    }
    ARCA_CHECK(
        base::replaceFile(dir_.get(), proto::kMonitorConfigFile, writeMonitorConfig(config)));
    ARCA_TRY(UniqueFd log,
             base::openAt(dir_.get(), kLogFile,
                          O_WRONLY | O_CREAT | O_APPEND | O_TRUNC | O_NOFOLLOW, 0600));
    ARCA_TRY(UniqueFd listener,
             base::listenUnix(dir_.get(), proto::kMonitorAttachSocket, SOCK_SEQPACKET));
    ARCA_CHECK(spawnMonitor(program, std::move(listener), dir_.get(), lock.get(), std::move(log),
                            config.sandbox_id));
    return base::connectUnix(dir_.get(), proto::kMonitorAttachSocket, SOCK_SEQPACKET);
}

UniqueFd SandboxFolder::openLog() const {
    auto log = base::openAt(dir_.get(), kLogFile, O_WRONLY | O_APPEND | O_NOFOLLOW);
    return log ? std::move(*log) : UniqueFd();
}

std::string SandboxFolder::failure() {
    if (!open()) return {};
    constexpr size_t kMaxBytes = 65536;
    const auto text = base::readFile(proto::kMonitorFailureFile, kMaxBytes, dir_.get());
    if (!text) return {};
    return base::printable(base::trim(*text));
}

Result<> SandboxFolder::remove() {
    if (auto opened = open(); !opened) {
        if (opened.error().sysErrno() == ENOENT) return {};
        return opened;
    }
    // A monitor that is leaving needs a moment; one that lives keeps its folder.
    constexpr std::chrono::seconds kPatience{5};
    const auto connection =
        base::connectUnix(dir_.get(), proto::kMonitorAttachSocket, SOCK_SEQPACKET);
    if (connection) return {};
    ARCA_TRY(const UniqueFd lock, takeLock(dir_.get(), kPatience));
    ARCA_CHECK(base::removeTree(root_fd_, path_));
    (void)::unlinkat(root_fd_, kFolder, AT_REMOVEDIR);  // the last one takes this too
    return {};
}

}  // namespace arca::runtime
