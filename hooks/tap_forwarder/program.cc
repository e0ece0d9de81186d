#include "hooks/tap_forwarder/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/event_loop.h"
#include "base/exec_child.h"
#include "base/files.h"
#include "base/log.h"
#include "base/pipe.h"
#include "base/process.h"
#include "base/transport.h"
#include "hooks/tap_forwarder/dhcp_script.h"
#include "hooks/tap_forwarder/forwarder.h"
#include "hooks/tap_forwarder/options.h"
#include "hooks/tap_forwarder/rpc_service.h"
#include "spec/version.h"

namespace arca::tap_forwarder {

using base::EventLoop;
using base::failErrno;
using base::Result;
using base::UniqueFd;
using base::Watch;

namespace {

constexpr int kUsageStatus = 2;
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::string_view kUnix = "unix://";

// SIGTERM and SIGINT as a descriptor; blocked in all threads that come later.
Result<UniqueFd> endSignals() {
    sigset_t ends;
    (void)::sigemptyset(&ends);
    for (const int number : {SIGTERM, SIGINT}) (void)::sigaddset(&ends, number);
    if (::sigprocmask(SIG_SETMASK, &ends, nullptr) != 0) return failErrno("sigprocmask");
    UniqueFd signals(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals.valid()) return failErrno("signalfd");
    if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return failErrno("ignore SIGPIPE");
    return signals;
}

// The folder of unix://DIR, made when it is missing, and then taken away again.
class Folder {
 public:
    Folder() = default;
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        if (!made_.empty()) (void)::rmdir(made_.c_str());
    }
    Result<> make(const std::string& address) {
        if (address.substr(0, kUnix.size()) != kUnix) return {};
        const std::string path = address.substr(kUnix.size());
        if (::mkdir(path.c_str(), 0700) == 0) {
            made_ = path;
        } else if (errno != EEXIST) {
            return failErrno("make " + path);
        }
        return {};
    }

 private:
    std::string made_;
};

// Takes the host's connections to the control port.
class Acceptor {
 public:
    Acceptor(EventLoop& loop, base::Listener& listener, RpcService& service)
        : loop_(loop), listener_(listener), service_(service) {}

    Result<> start() {
        ARCA_TRY(watch_,
                 Watch::make(loop_, listener_.fd(), EPOLLIN, [this](uint32_t) { acceptOne(); }));
        return {};
    }

 private:
    void acceptOne() {
        auto connection = listener_.accept();
        if (connection) return service_.serve(std::move(*connection));
        base::log::warning(connection.error().message());
        if (connection.error().sysErrno() == EAGAIN) return;
        // Out of descriptors, say: the same would come again at once.
        watch_.reset();
        again_ = base::Timer(loop_, kAcceptPause, [this] {
            const auto started = start();
            if (!started) base::log::error(started.error().message());
        });
    }

    EventLoop& loop_;
    base::Listener& listener_;
    RpcService& service_;
    Watch watch_;
    base::Timer again_;
};

Result<> sayReady(const std::optional<int>& number) {
    if (!number) return {};
    const UniqueFd ready(*number);
    auto said = base::writeAll(ready.get(), "\n");
    if (!said) return fail(std::move(said).error().withContext("say that it listens"));
    return {};
}

// `program`: a pidfd of the process that this one is for, or -1; its end is the forwarder's.
Result<> serve(const Options& options, int program) {
    ARCA_TRY(const UniqueFd signals, endSignals());
    ARCA_TRY(const auto transport, base::openTransport(options.listen));
    Folder folder;
    ARCA_CHECK(folder.make(transport->address()));
    ARCA_TRY(const auto listener, transport->listen(base::kForwarderPort));
    ARCA_TRY(const auto loop, EventLoop::make());
    Forwarder forwarder(*transport, options.resolv_conf);
    RpcService service(forwarder, options.dns_socket);
    Acceptor acceptor(*loop, *listener, service);
    ARCA_CHECK(acceptor.start());
    std::vector<Watch> ends;
    for (const int fd : {signals.get(), program}) {
        if (fd < 0) continue;
        ARCA_TRY(ends.emplace_back(),
                 Watch::make(*loop, fd, EPOLLIN, [&loop](uint32_t) { loop->stop(); }));
    }
    base::log::info("listening on " + transport->address() + ", port " +
                    std::to_string(base::kForwarderPort));
    ARCA_CHECK(sayReady(options.ready_fd));
    loop->run();
    base::log::info("ending");
    return {};
}

int serveAndReport(const Options& options, int program) {
    const auto served = serve(options, program);
    if (served) return 0;
    base::log::error(served.error().message());
    return 1;
}

// ---- beside a program ----

// The forwarder of a program: it ends when the program does, and holds nothing of the program's
// but the standard error, for its log.
int serveBeside(Options options, int program, UniqueFd ready) {
    (void)::setsid();
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (null.valid()) {
        for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) (void)::dup2(null.get(), fd);
    }
    options.ready_fd = ready.release();
    return serveAndReport(options, program);
}

// Becomes the program once the forwarder listens. Comes back when something fails.
Result<> runProgram(const Options& options) {
    ARCA_TRY(base::Pipe pipe, base::makePipe());
    UniqueFd listens = std::move(pipe.read_end);
    UniqueFd ready = std::move(pipe.write_end);
    // Not the death signal of a parent: that is the end of its first thread already.
    ARCA_TRY(const UniqueFd self, base::openPidfd(::getpid()));
    const pid_t child = ::fork();
    if (child < 0) return failErrno("fork");
    if (child == 0) {
        listens.reset();
        ::_exit(serveBeside(options, self.get(), std::move(ready)));
    }
    ready.reset();
    ARCA_TRY(const std::string said, base::readAll(listens.get(), 1));
    if (said.empty()) {
        (void)base::reapChild(child);
        return base::fail(base::Code::kUnavailable,
                          options.program.front() + ": not run, as the forwarder could not start");
    }
    const std::vector<char*> argv = base::execPointers(options.program);
    (void)::execvp(argv[0], argv.data());
    const int error = errno;
    (void)::kill(child, SIGTERM);
    (void)base::reapChild(child);
    return failErrno("exec " + options.program.front(), error);
}

int runProgramAndReport(const Options& options) {
    const auto result = runProgram(options);
    base::log::error(result.error().message());
    constexpr int kNotFound = 127;
    constexpr int kNotExecuted = 126;
    if (result.error().code() == base::Code::kUnavailable) return 1;
    return result.error().sysErrno() == ENOENT ? kNotFound : kNotExecuted;
}

}  // namespace

int runForwarder(const std::vector<std::string_view>& args) {
    if (!args.empty() && args[0] == kDhcpScriptWord) {
        return runDhcpScript({args.begin() + 1, args.end()});
    }
    const auto options = parseOptions(args, std::getenv(kReadyVariable));
    if (!options) {
        (void)std::fprintf(stderr, "%s: %s\n%s", kProgramName, options.error().message().c_str(),
                           kHelp);
        return kUsageStatus;
    }
    // Before anything is opened that could get the number.
    if (options->ready_fd && ::fcntl(*options->ready_fd, F_SETFD, FD_CLOEXEC) != 0) {
        (void)std::fprintf(stderr, "%s: descriptor %d to say that it listens: not open\n",
                           kProgramName, *options->ready_fd);
        return kUsageStatus;
    }
    if (options->help) return std::fputs(kHelp, stdout) < 0 ? 1 : 0;
    if (options->version) return std::printf("%s\n", spec::kProjectVersion) < 0 ? 1 : 0;
    (void)base::log::setUp({.format = base::log::Format::kConsole, .label = kProgramName});
    return options->program.empty() ? serveAndReport(*options, -1) : runProgramAndReport(*options);
}

}  // namespace arca::tap_forwarder
