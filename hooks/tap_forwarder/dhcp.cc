#include "hooks/tap_forwarder/dhcp.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/exec_child.h"
#include "base/files.h"
#include "base/log.h"
#include "base/pipe.h"
#include "base/process.h"
#include "base/scope_exit.h"
#include "base/strings.h"
#include "base/thread.h"

namespace arca::tap_forwarder {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr seconds kPatience{10};  // for a lease, each time
constexpr std::array<seconds, 2> kPauses{seconds{10}, seconds{15}};
constexpr size_t kLongestLine = 4096;

// "#!", the program that runs now, and the word that makes it the script: no file is left anywhere.
Result<UniqueFd> makeScript() {
    UniqueFd script(::memfd_create("dhcp-script", MFD_CLOEXEC));
    if (!script.valid()) return failErrno("memfd_create");
    ARCA_CHECK(base::writeAll(
        script.get(), "#!/proc/" + std::to_string(::getpid()) + "/exe " + kDhcpScriptWord + "\n"));
    return script;
}

std::string scriptPath(const UniqueFd& script) {
    return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(script.get());
}

// CHILD SIDE
[[noreturn]] void childMain(const char* file, char* const* argv, char* const* envp, int null,
                            int output, int report, pid_t parent) noexcept {
    (void)::setpgid(0, 0);
    // The forwarder may be killed: what it has started must not live on.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) {
        base::reportAndExit(report, ESRCH);
    }
    base::resetSignals();
    if (::dup2(null, STDIN_FILENO) >= 0 && ::dup2(output, STDOUT_FILENO) >= 0 &&
        base::closeAtExecFrom(3)) {
        (void)::execve(file, argv, envp);
    }
    base::reportAndExit(report, errno);
}

// Starts it in a process group of its own; gives its pid. `output`: its standard output.
Result<pid_t> startClient(const DhcpProgram& program, int output) {
    const char* path = std::getenv("PATH");
    const std::vector<std::string> environment{std::string("PATH=") + (path ? path : "")};
    const std::vector<char*> argv = base::execPointers(program.args);
    const std::vector<char*> envp = base::execPointers(environment);
    ARCA_TRY(const UniqueFd null, base::openAt(AT_FDCWD, "/dev/null", O_RDWR));
    ARCA_TRY(base::Pipe report, base::makePipe());
    const pid_t self = ::getpid();
    pid_t pid = 0;
    {
        const base::SignalsBlocked blocked;
        pid = ::fork();
        if (pid == 0) {
            childMain(program.file.c_str(), argv.data(), envp.data(), null.get(), output,
                      report.write_end.get(), self);
        }
    }
    if (pid < 0) return failErrno("fork");
    (void)::setpgid(pid, pid);
    report.write_end.reset();
    if (const auto error = base::reportedError(report.read_end.get())) {
        (void)base::reapChild(pid);
        return failErrno("exec " + program.file, *error);
    }
    return pid;
}

bool isExecutable(const std::string& file) {
    return ::access(file.c_str(), X_OK) == 0;
}

}  // namespace

Result<DhcpProgram> findDhcpProgram(const std::string& path, const std::string& interface,
                                    const std::string& script) {
    const std::vector<std::string> udhcpc{"udhcpc", "-f", "-n", "-i", interface, "-s",
                                          script,   "-t", "3",  "-T", "3"};
    const std::vector<std::string> busybox = [&udhcpc] {
        std::vector<std::string> out{"busybox"};
        out.insert(out.end(), udhcpc.begin(), udhcpc.end());
        return out;
    }();
    const std::vector<std::string> dhclient{"dhclient",  "-d",   "-4",        "-cf",
                                            "/dev/null", "-lf",  "/dev/null", "--no-pid",
                                            "-sf",       script, interface};
    for (const auto* args : {&udhcpc, &dhclient, &busybox}) {
        for (const std::string_view folder : base::split(path, ':')) {
            if (folder.empty()) continue;
            const std::string file = std::string(folder) + "/" + args->front();
            if (isExecutable(file)) return DhcpProgram{file, *args};
        }
    }
    return fail(Code::kNotFound, "there is no DHCP client (udhcpc, dhclient or busybox) in PATH");
}

Result<std::unique_ptr<DhcpClient>> DhcpClient::start(std::string interface, Changed changed) {
    UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake.valid()) return failErrno("eventfd");
    std::unique_ptr<DhcpClient> client(
        new DhcpClient(std::move(interface), std::move(changed), std::move(wake)));
    if (client->stop_.fd() < 0) return failErrno("eventfd");
    ARCA_TRY(client->thread_, base::startThread([raw = client.get()] { raw->run(); }));
    return client;
}

DhcpClient::~DhcpClient() {
    (void)stop_.set();
    if (thread_.joinable()) thread_.join();
}

void DhcpClient::connected() {
    (void)::eventfd_write(wake_.get(), 1);
}

void DhcpClient::run() {
    while (true) {
        std::array<pollfd, 2> entries{pollfd{stop_.fd(), POLLIN, 0},
                                      pollfd{wake_.get(), POLLIN, 0}};
        if (::poll(entries.data(), entries.size(), -1) <= 0) continue;
        if (entries[0].revents != 0) return;
        eventfd_t count = 0;
        (void)::eventfd_read(wake_.get(), &count);
        if (!attempts()) return;
    }
}

bool DhcpClient::attempts() {
    for (size_t failed = 0; failed <= kPauses.size();) {
        const auto end = runProgram();
        if (!end) {
            base::log::error(interface_ + ": DHCP: " + end.error().message() +
                             "; the link stays without an address");
            return true;
        }
        if (*end == End::kStopped) return false;
        if (*end == End::kLeaseOver) {
            base::log::warning(interface_ + ": DHCP: the client has ended; it is started again");
            failed = 0;
        } else {
            ++failed;
            base::log::warning(interface_ + ": DHCP: no lease, attempt " + std::to_string(failed));
        }
        if (failed <= kPauses.size() && !pause(kPauses[failed == 0 ? 0 : failed - 1])) return false;
    }
    base::log::error(interface_ +
                     ": DHCP: nobody gives a lease; the link stays without an address");
    return true;
}

bool DhcpClient::pause(seconds time) {
    pollfd entry{stop_.fd(), POLLIN, 0};
    return ::poll(&entry, 1, static_cast<int>(milliseconds(time).count())) == 0;
}

Result<DhcpClient::End> DhcpClient::runProgram() {
    ARCA_TRY(const UniqueFd script, makeScript());
    const char* path = std::getenv("PATH");
    ARCA_TRY(const DhcpProgram program,
             findDhcpProgram(path != nullptr ? path : "", interface_, scriptPath(script)));
    ARCA_TRY(base::Pipe output, base::makePipe());
    ARCA_TRY(const pid_t pid, startClient(program, output.write_end.get()));
    output.write_end.reset();
    const base::ScopeExit end_all([pid] {
        (void)::kill(-pid, SIGKILL);
        (void)base::reapChild(pid);
    });
    ARCA_TRY(const UniqueFd pidfd, base::openPidfd(pid));
    return follow(output.read_end.get(), pidfd.get());
}

DhcpClient::End DhcpClient::follow(int output, int pidfd) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    std::string text;
    bool bound = false;
    bool reads = true;
    while (true) {
        const auto left =
            std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
        if (!bound && left.count() <= 0) return End::kNoLease;
        std::array<pollfd, 3> entries{pollfd{stop_.fd(), POLLIN, 0},
                                      pollfd{reads ? output : -1, POLLIN, 0},
                                      pollfd{pidfd, POLLIN, 0}};
        const int wait_ms = bound ? -1 : static_cast<int>(left.count());
        if (::poll(entries.data(), entries.size(), wait_ms) <= 0) continue;
        if (entries[0].revents != 0) return End::kStopped;
        if (entries[1].revents != 0) {
            std::array<char, kLongestLine> piece{};
            const ssize_t n = ::read(output, piece.data(), piece.size());
            if (n <= 0 && errno != EINTR) reads = false;
            if (n > 0) text.append(piece.data(), static_cast<size_t>(n));
            takeLines(text, bound);
            continue;  // everything that it has said, before its end is looked at
        }
        if (entries[2].revents != 0) return bound ? End::kLeaseOver : End::kNoLease;
    }
}

void DhcpClient::takeLines(std::string& text, bool& bound) {
    size_t end = 0;
    while ((end = text.find('\n')) != std::string::npos) {
        const auto event = parseDhcpLine(std::string_view(text).substr(0, end));
        text.erase(0, end + 1);
        if (!event) continue;
        bound = bound || event->lease.has_value();
        changed_(event->lease);
    }
    if (text.size() > kLongestLine) text.clear();
}

}  // namespace arca::tap_forwarder
