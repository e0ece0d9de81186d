// vminitd: the agent of a sandbox.
//
//   vminitd --local --root DIR --key KEY --idle-seconds N --rpc-fd N --attach-fd N --lock-fd N
//           --dir-fd N
//   vminitd --version
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "spec/version.h"
#include "vminitd/activity.h"
#include "vminitd/agent.h"
#include "vminitd/attach.h"
#include "vminitd/cgroup.h"
#include "vminitd/cgroup_fs.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"
#include "vminitd/local_daemon.h"
#include "vminitd/rpc_server.h"

namespace arca::vminitd {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

constexpr char kUsage[] =
    "usage: vminitd --local --root DIR --key KEY --idle-seconds N\n"
    "               --rpc-fd N --attach-fd N --lock-fd N --dir-fd N\n"
    "       vminitd --version\n";

Result<std::map<std::string, std::string>> readOptions(const std::vector<std::string_view>& args) {
    std::map<std::string, std::string> out;
    for (size_t i = 0; i < args.size(); ++i) {
        std::string_view name = args[i];
        if (name == "--local") continue;
        if (name.substr(0, 2) != "--") {
            return fail(Code::kInvalidArgument, "unexpected argument " + std::string(name));
        }
        name.remove_prefix(2);
        const size_t equals = name.find('=');
        if (equals != std::string_view::npos) {
            out[std::string(name.substr(0, equals))] = name.substr(equals + 1);
        } else if (i + 1 < args.size()) {
            out[std::string(name)] = args[++i];
        } else {
            return fail(Code::kInvalidArgument, "--" + std::string(name) + " needs a value");
        }
    }
    return out;
}

// Takes over an inherited descriptor.
Result<UniqueFd> inherited(const std::map<std::string, std::string>& options, const char* name) {
    const auto found = options.find(name);
    const auto number =
        found == options.end() ? std::nullopt : base::parseNumber<int>(found->second);
    if (!number || *number < 3 || ::fcntl(*number, F_SETFD, FD_CLOEXEC) != 0) {
        return fail(Code::kInvalidArgument,
                    std::string("--") + name + ": not an open descriptor of 3 or more");
    }
    return UniqueFd(*number);
}

Result<DaemonOptions> daemonOptions(const std::map<std::string, std::string>& options) {
    DaemonOptions out;
    const auto root = options.find("root");
    if (root == options.end() || root->second.substr(0, 1) != "/") {
        return fail(Code::kInvalidArgument, "--root: an absolute path is needed");
    }
    out.state_root = base::cleanPath(root->second);
    const auto key = options.find("key");
    if (key != options.end()) out.key = key->second;
    const auto idle = options.find("idle-seconds");
    if (idle != options.end()) {
        const auto seconds = base::parseNumber<unsigned>(idle->second);
        if (!seconds) return fail(Code::kInvalidArgument, "--idle-seconds: not a number");
        out.idle = std::chrono::seconds(*seconds);
    }
    ARCA_TRY(out.rpc_listener, inherited(options, "rpc-fd"));
    ARCA_TRY(out.attach_listener, inherited(options, "attach-fd"));
    ARCA_TRY(out.lock, inherited(options, "lock-fd"));
    ARCA_TRY(out.folder, inherited(options, "dir-fd"));
    return out;
}

Result<> runLocal(const std::vector<std::string_view>& args) {
    ARCA_TRY(const auto parsed, readOptions(args));
    ARCA_TRY(DaemonOptions options, daemonOptions(parsed));
    ARCA_CHECK(becomeDaemon(options));
    RealCgroupFs cgroup_fs;
    ARCA_TRY(const std::string mountinfo, base::readFile("/proc/self/mountinfo"));
    leaveCgroups(parseHierarchies(mountinfo), cgroup_fs);
    ARCA_TRY(const auto cgroups, detectCgroups(cgroup_fs));
    ARCA_TRY(const auto loop, EventLoop::make());
    ARCA_TRY(UniqueFd state_root, base::openAt(AT_FDCWD, options.state_root, O_PATH | O_DIRECTORY));

    AttachServer attach(*loop);
    Activity activity;
    Environment environment({});
    Agent agent(
        *loop, *cgroups, cgroup_fs, attach,
        Agent::Config{
            .state_root = options.state_root, .cgroup_prefix = "", .commands_forget_execs = true},
        std::move(state_root));
    RpcServer rpc({*loop, agent, environment, activity});
    LocalDaemon daemon(*loop, std::move(options), attach, activity,
                       [&rpc](UniqueFd connection) { rpc.serve(std::move(connection)); });
    ARCA_CHECK(daemon.start());
    loop->run();
    // All that matters is on disk; taking gRPC down in order would only cost time.
    ::_exit(0);
}

int run(const std::vector<std::string_view>& args) {
    if (args.size() == 1 && args[0] == "--version") {
        (void)std::printf("vminitd version %s\n", spec::kProjectVersion);
        return 0;
    }
    if (args.empty() || args[0] == "--help") {
        (void)std::fputs(kUsage, stderr);
        return args.empty() ? 1 : 0;
    }
    bool local = false;
    for (const std::string_view arg : args) local = local || arg == "--local";
    if (!local) {
        (void)std::fprintf(stderr, "vminitd: mode %s: not built yet; only --local is\n%s",
                           std::string(args[0]).c_str(), kUsage);
        return 1;
    }
    auto result = runLocal(args);
    if (result) return 0;
    base::log::error(result.error().message());
    return 1;
}

}  // namespace
}  // namespace arca::vminitd

int main(int argc, char** argv) {
    try {
        return arca::vminitd::run({argv + 1, argv + argc});
    } catch (const std::exception& e) {
        arca::base::log::error(e.what());
        return 1;
    }
}
