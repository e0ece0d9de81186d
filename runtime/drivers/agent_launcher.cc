#include "runtime/drivers/agent_launcher.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/process.h"
#include "base/socket.h"
#include "base/strings.h"
#include "runtime/context.h"
#include "runtime/programs.h"
#include "runtime/spawn_detached.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

constexpr char kFolder[] = "@local";  // '@' cannot begin a container id
constexpr char kRpcSocket[] = "rpc.sock";
constexpr char kAttachSocket[] = "attach.sock";
constexpr char kLockFile[] = "lock";
constexpr char kLogFile[] = "agent.log";
constexpr off_t kLogLimitBytes = off_t{1} << 20;
constexpr char kDefaultIdleSeconds[] = "5";

Result<UniqueFd> openAgentDir(int root_fd, const std::string& key) {
    const std::string path = std::string(kFolder) + "/" + key;
    auto dir = base::openAt(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (dir || dir.error().sysErrno() != ENOENT) return dir;
    for (const std::string& part : {std::string(kFolder), path}) {
        if (::mkdirat(root_fd, part.c_str(), 0700) != 0 && errno != EEXIST) {
            return failErrno("mkdir " + part);
        }
    }
    return base::openAt(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

// Waits for the lock that an agent being started or leaving holds; both take milliseconds.
Result<UniqueFd> takeLock(int dir_fd) {
    ARCA_TRY(UniqueFd fd, base::openAt(dir_fd, kLockFile, O_RDWR | O_CREAT, 0600));
    constexpr int kTries = 2000;
    const timespec pause{0, 5'000'000};
    for (int i = 0; i < kTries; ++i) {
        if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
        if (errno != EWOULDBLOCK && errno != EINTR) return failErrno("lock the agent's folder");
        (void)::nanosleep(&pause, nullptr);
    }
    return fail(Code::kUnavailable, "an agent is being started or leaves, and does not get on");
}

Result<UniqueFd> openLog(int dir_fd) {
    const int flags = O_WRONLY | O_CREAT | O_APPEND;
    ARCA_TRY(UniqueFd fd, base::openAt(dir_fd, kLogFile, flags, 0600));
    struct stat st {};
    if (::fstat(fd.get(), &st) == 0 && st.st_size > kLogLimitBytes) {
        if (::ftruncate(fd.get(), 0) != 0) return failErrno("truncate agent.log");
    }
    return fd;
}

struct AgentFds {
    UniqueFd rpc, attach, lock, dir;
};

std::vector<std::string> agentArguments(const std::string& root, const std::string& key) {
    const std::string wanted = environmentValue("ARCA_AGENT_IDLE_SECONDS");
    const std::string idle = base::parseNumber<unsigned>(wanted) ? wanted : kDefaultIdleSeconds;
    std::vector<std::string> words = {
        "vminitd",  "--local", "--root",      root, "--key",     key, "--idle-seconds", idle,
        "--rpc-fd", "3",       "--attach-fd", "4",  "--lock-fd", "5", "--dir-fd",       "6"};
    if (base::log::writesDebug()) words.insert(words.end(), {"--log-level", "debug"});
    return words;
}

Result<> spawnAgent(const Program& program, const std::string& root, const std::string& key,
                    AgentFds fds) {
    DetachedProgram agent{program.path, agentArguments(root, key), {}, UniqueFd()};
    ARCA_TRY(agent.log, openLog(fds.dir.get()));
    for (UniqueFd* fd : {&fds.rpc, &fds.attach, &fds.lock, &fds.dir}) {
        agent.fds.push_back(std::move(*fd));
    }
    return startDetached(std::move(agent));
}

// With the lock held: makes the sockets and the agent.
Result<> launch(int root_fd, UniqueFd dir, UniqueFd lock, const std::string& key) {
    ARCA_TRY(const Program program, findProgram("vminitd"));
    char buffer[4096];
    const ssize_t n = ::readlink(base::fdPath(root_fd).c_str(), buffer, sizeof buffer);
    if (n < 0) return failErrno("readlink the state root");
    const std::string root(buffer, static_cast<size_t>(n));
    AgentFds fds;
    // attach.sock first: who can connect to rpc.sock finds both.
    ARCA_TRY(fds.attach, base::listenUnix(dir.get(), kAttachSocket, SOCK_SEQPACKET));
    ARCA_TRY(fds.rpc, base::listenUnix(dir.get(), kRpcSocket, SOCK_STREAM));
    UniqueFd lock_copy(::fcntl(lock.get(), F_DUPFD_CLOEXEC, 3));
    if (!lock_copy.valid()) return failErrno("duplicate the lock");
    fds.lock = std::move(lock_copy);
    fds.dir = std::move(dir);
    auto spawned = spawnAgent(program, root, key, std::move(fds));
    // The agent shares this lock's description and takes it again when it leaves. It is open to
    // others from here on: the sockets exist and are the agent's.
    (void)::flock(lock.get(), LOCK_UN);
    return spawned;
}

// One number for a namespace or a directory.
Result<uint64_t> fileIdentity(const char* path) {
    struct stat st {};
    if (::stat(path, &st) != 0) return failErrno(std::string("stat ") + path);
    return static_cast<uint64_t>(st.st_dev) * 0x9e3779b97f4a7c15ULL ^
           static_cast<uint64_t>(st.st_ino);
}

}  // namespace

Result<std::string> agentKey() {
    std::string numbers;
    for (const char* path : {"/proc/self/ns/mnt", "/proc/self/ns/pid", "/proc/self/ns/user",
                             "/proc/self/ns/cgroup", "/"}) {
        ARCA_TRY(const uint64_t number, fileIdentity(path));
        numbers.append(reinterpret_cast<const char*>(&number), sizeof number);
    }
    return base::fnv1aHex(numbers);
}

Result<UniqueFd> connectAgent(int root_fd, const std::string& key) {
    ARCA_TRY(UniqueFd dir, openAgentDir(root_fd, key));
    auto connection = base::connectUnix(dir.get(), kRpcSocket, SOCK_STREAM);
    if (connection || connection.error().code() != Code::kUnavailable) return connection;
    ARCA_TRY(UniqueFd lock, takeLock(dir.get()));
    connection = base::connectUnix(dir.get(), kRpcSocket, SOCK_STREAM);
    if (connection || connection.error().code() != Code::kUnavailable) return connection;
    UniqueFd dir_copy(::fcntl(dir.get(), F_DUPFD_CLOEXEC, 3));
    if (!dir_copy.valid()) return failErrno("duplicate the agent's folder");
    auto launched = launch(root_fd, std::move(dir_copy), std::move(lock), key);
    if (!launched) {
        return fail(Code::kUnavailable, "no agent: " + launched.error().message(),
                    launched.error().sysErrno());
    }
    return base::connectUnix(dir.get(), kRpcSocket, SOCK_STREAM);
}

Result<UniqueFd> connectAttach(int root_fd, const std::string& key) {
    ARCA_TRY(UniqueFd dir, openAgentDir(root_fd, key));
    return base::connectUnix(dir.get(), kAttachSocket, SOCK_SEQPACKET);
}

}  // namespace arca::runtime
