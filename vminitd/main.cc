// vminitd: the agent of a sandbox.
//
//   vminitd [agent] [--log-level L] [--transport ADDRESS] [--state-root DIR] [--cgroup-prefix P]
//           [--vmexec FILE] [--hooks-dir DIR]
//                                first process of a VM, or a plain process that serves the same
//   vminitd init [-p] [--] COMMAND [ARGUMENTS]   init of a container; also as `.cz-init`
//   vminitd pause                holds a pod's namespaces
//   arca-tap-forwarder ...       another name of this file: see hooks/tap_forwarder
//   vminitd --local --root DIR --key KEY [--log-level L] --idle-seconds N --rpc-fd N --attach-fd N
//           --lock-fd N --dir-fd N   the agent of a host's local sandbox
//   vminitd --version | --help
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "hooks/tap_forwarder/dhcp_script.h"
#include "hooks/tap_forwarder/program.h"
#include "spec/version.h"
#include "vminitd/activity.h"
#include "vminitd/agent.h"
#include "vminitd/attach.h"
#include "vminitd/cgroup.h"
#include "vminitd/cgroup_fs.h"
#include "vminitd/container_init.h"
#include "vminitd/environment.h"
#include "vminitd/event_loop.h"
#include "vminitd/local_daemon.h"
#include "vminitd/rootless_cgroups.h"
#include "vminitd/rpc_server.h"
#include "vminitd/vm_daemon.h"
#include "vminitd/vm_power.h"

namespace arca::vminitd {
namespace {

using base::Code;
using base::fail;
using base::Result;
using base::UniqueFd;

using Arguments = std::vector<std::string_view>;

constexpr int kUsageStatus = 2;
constexpr char kUsage[] =
    "usage: vminitd [agent] [--log-level trace|debug|info|notice|warning|error|critical]\n"
    "               [--transport ADDRESS] [--state-root DIR] [--cgroup-prefix PATH]\n"
    "               [--vmexec FILE] [--hooks-dir DIR]\n"
    "       vminitd init [-p | --process-group] [--] COMMAND [ARGUMENTS]\n"
    "       vminitd pause [--log-level LEVEL]\n"
    "       vminitd --local --root DIR --key KEY --idle-seconds N\n"
    "               --rpc-fd N --attach-fd N --lock-fd N --dir-fd N\n"
    "       vminitd --version | --help\n";

Result<std::map<std::string, std::string>> readOptions(const Arguments& args) {
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

base::log::Level logLevel(std::string_view name) {
    using base::log::Level;
    if (name == "trace" || name == "debug") return Level::kDebug;
    if (name == "warning") return Level::kWarning;
    if (name == "error" || name == "critical") return Level::kError;
    return Level::kInfo;  // info, notice, and what nobody knows: see the guest protocol
}

Result<> runLocal(const Arguments& args) {
    ARCA_TRY(const auto parsed, readOptions(args));
    const auto level = parsed.find("log-level");
    if (level != parsed.end()) {
        base::log::Options log;
        log.level = logLevel(level->second);
        ARCA_CHECK(base::log::setUp(log));
    }
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
    Agent agent(*loop, *cgroups, cgroup_fs, attach,
                Agent::Config{.state_root = options.state_root,
                              .cgroup_prefix = "",
                              .commands_forget_execs = true,
                              .rootless = runsRootless()},
                std::move(state_root));
    RpcServer rpc({*loop, agent, environment, activity});
    LocalDaemon daemon(*loop, std::move(options), attach, activity,
                       [&rpc](UniqueFd connection) { rpc.serve(std::move(connection)); });
    ARCA_CHECK(daemon.start());
    loop->run();
    // All that matters is on disk; taking gRPC down in order would only cost time.
    ::_exit(0);
}

// ---- the agent of a VM ----

// The first process of a VM gets what the kernel did not understand of its own command line, so it
// passes over what it does not know; everybody else is told.
Result<VmOptions> vmOptions(Arguments args, bool tolerant) {
    VmOptions out;
    std::string level;
    std::string hooks_dir;
    const std::map<std::string_view, std::string*> known = {
        {"--log-level", &level},           {"--transport", &out.transport},
        {"--state-root", &out.state_root}, {"--cgroup-prefix", &out.cgroup_prefix},
        {"--vmexec", &out.vmexec},         {"--hooks-dir", &hooks_dir},
    };
    for (size_t i = 0; i < args.size(); ++i) {
        const size_t equals = args[i].find('=');
        const auto option = known.find(args[i].substr(0, equals));
        const bool has_value = equals != std::string_view::npos || i + 1 < args.size();
        if (option == known.end() || !has_value) {
            if (tolerant) continue;
            return fail(
                Code::kInvalidArgument,
                std::string(args[i]) + (option == known.end() ? ": not known" : ": needs a value"));
        }
        *option->second = equals == std::string_view::npos ? args[++i] : args[i].substr(equals + 1);
    }
    out.log_level = logLevel(level);
    if (!hooks_dir.empty()) out.hooks_dir = hooks_dir;
    if (out.state_root.substr(0, 1) != "/") {
        return fail(Code::kInvalidArgument, "--state-root: an absolute path is needed");
    }
    out.state_root = base::cleanPath(out.state_root);
    return out;
}

int usage(const std::string& problem) {
    (void)std::fprintf(stderr, "vminitd: %s\n%s", problem.c_str(), kUsage);
    return kUsageStatus;
}

int runAgent(Arguments args) {
    const bool first = ::getpid() == 1;
    if (!args.empty() && args[0] == "agent") args.erase(args.begin());
    const auto options = vmOptions(std::move(args), first);
    if (!options) return usage(options.error().message());
    const auto result = runVmAgent(*options);
    if (!result) base::log::error(result.error().message());
    // Not even this may end the first process.
    if (first) powerOff();
    return result ? 0 : 1;
}

// ---- in containers ----

int runInit(Arguments args) {
    bool whole_group = false;
    size_t at = 0;
    for (; at < args.size() && args[at].substr(0, 1) == "-"; ++at) {
        if (args[at] == "--") {
            ++at;
            break;
        }
        if (args[at] != "-p" && args[at] != "--process-group") {
            return usage("init: " + std::string(args[at]) + ": not known");
        }
        whole_group = true;
    }
    if (at == args.size()) return usage("init: a command is needed");
    return runContainerInit({args.begin() + static_cast<std::ptrdiff_t>(at), args.end()},
                            whole_group);
}

int runPauseMode(const Arguments& args) {
    // A level is taken, as hosts give one, but there is nothing to say.
    const bool level = (args.size() == 2 && args[0] == "--log-level") ||
                       (args.size() == 1 && args[0].substr(0, 12) == "--log-level=");
    if (!args.empty() && !level) return usage("pause: " + std::string(args[0]) + ": not known");
    return runPause();
}

int runLocalMode(const Arguments& args) {
    auto result = runLocal(args);
    if (result) return 0;
    base::log::error(result.error().message());
    return 1;
}

bool has(const Arguments& args, std::string_view word) {
    return std::find(args.begin(), args.end(), word) != args.end();
}

int run(std::string_view program, Arguments args) {
    const std::string_view name = program.substr(program.rfind('/') + 1);
    if (name == ".cz-init") return runInit(std::move(args));
    const std::string_view mode = args.empty() ? std::string_view() : args[0];
    // The second is the same as the script of its DHCP client, which is found by another name.
    if (name == tap_forwarder::kProgramName || mode == tap_forwarder::kDhcpScriptWord) {
        return tap_forwarder::runForwarder(args);
    }
    if (mode == "init") return runInit({args.begin() + 1, args.end()});
    if (mode == "pause") return runPauseMode({args.begin() + 1, args.end()});
    if (args.size() == 1 && mode == "--version") {
        (void)std::printf("vminitd version %s\n", spec::kProjectVersion);
        return 0;
    }
    if (args.size() == 1 && mode == "--help") {
        (void)std::fputs(kUsage, stdout);
        return 0;
    }
    if (has(args, "--local")) return runLocalMode(args);
    return runAgent(std::move(args));
}

}  // namespace
}  // namespace arca::vminitd

int main(int argc, char** argv) {
    try {
        return arca::vminitd::run(argv[0], {argv + 1, argv + argc});
    } catch (const std::exception& e) {
        arca::base::log::error(e.what());
        if (::getpid() == 1) arca::vminitd::powerOff();
        return 1;
    }
}
