// arca-monitor: one for each sandbox that has a guest; started by arca-runtime, never by hand.
//
//   arca-monitor --listener-fd N --dir-fd N --lock-fd N [--title TEXT]
//
// The listener is the sandbox's attach.sock; the folder holds config.json. The lock's descriptor is
// only held: whoever can take the lock knows that no monitor lives.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "proto/monitor_protocol.h"
#include "runtime/monitor/monitor.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

Result<UniqueFd> inherited(const std::map<std::string, std::string>& options, const char* name) {
    const auto found = options.find(name);
    const auto number =
        found == options.end() ? std::nullopt : base::parseNumber<int>(found->second);
    if (!number || *number < 3 || ::fcntl(*number, F_SETFD, FD_CLOEXEC) != 0) {
        return fail(Code::kInvalidArgument, std::string(name) + ": not an open descriptor");
    }
    return UniqueFd(*number);
}

// Children of the file server and others that ended without their parent.
void reapAll() {
    constexpr int kTries = 100;
    for (int i = 0; i < kTries; ++i) {
        const pid_t pid = ::waitpid(-1, nullptr, WNOHANG);
        if (pid < 0) return;  // there are none
        if (pid == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

Result<> run(const std::vector<std::string>& args) {
    std::map<std::string, std::string> options;
    for (size_t i = 0; i + 1 < args.size(); i += 2) options[args[i]] = args[i + 1];
    ARCA_TRY(UniqueFd listener, inherited(options, "--listener-fd"));
    ARCA_TRY(UniqueFd dir, inherited(options, "--dir-fd"));
    ARCA_TRY(const UniqueFd lock, inherited(options, "--lock-fd"));
    ARCA_TRY(const std::string text,
             base::readFile(proto::kMonitorConfigFile, size_t{1} << 20U, dir.get()));
    ARCA_TRY(MonitorConfig config, parseMonitorConfig(text));
    (void)::signal(SIGPIPE, SIG_IGN);
    // Descendants of the helpers end here and not with the host's init.
    if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return base::failErrno("become a subreaper");
    ARCA_TRY(const auto loop, base::EventLoop::make());
    {
        Monitor monitor(*loop, std::move(config), std::move(dir), std::move(listener));
        auto started = monitor.start();
        if (!started) {
            monitor.giveUp(started.error());
        }
        loop->run();
    }
    reapAll();
    return {};
}

}  // namespace
}  // namespace arca::runtime

int main(int argc, char** argv) {
    try {
        const std::vector<std::string> args(argv + 1, argv + argc);
        if (args.size() == 1 && args[0] == "--help") {
            return std::puts("arca-monitor is started by arca-runtime; see arca-runtime(8)") < 0;
        }
        const auto done = arca::runtime::run(args);
        if (done) return 0;
        arca::base::log::error(done.error().message());
    } catch (const std::exception& error) {
        arca::base::log::error(error.what());
    }
    return 1;
}
