#include "runtime/context.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

#include "base/files.h"
#include "base/process.h"
#include "base/strings.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

constexpr char kDefaultRoot[] = "/run/arca-runtime";
constexpr int kFirstInherited = 3;

Result<> readCgroupManager(const Arguments& arguments, Globals& globals) {
    globals.systemd_cgroup = arguments.isSet("systemd-cgroup");
    const std::string& manager = arguments.text("cgroup-manager");
    if (manager == "systemd") globals.systemd_cgroup = true;
    if (manager == "disabled") globals.cgroups_disabled = true;
    if (manager.empty() || manager == "cgroupfs" || globals.systemd_cgroup ||
        globals.cgroups_disabled) {
        return {};
    }
    return fail(Code::kInvalidArgument, "invalid cgroup-manager: " + base::printable(manager));
}

}  // namespace

std::string environmentValue(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

Result<> checkSandbox(const std::string& sandbox) {
    if (sandbox == "local" || sandbox == "vm" || sandbox.rfind("connect=", 0) == 0) return {};
    return fail(Code::kInvalidArgument, "invalid sandbox \"" + base::printable(sandbox) +
                                            "\": not local, vm or connect=ADDRESS");
}

RootDefault defaultRoot(unsigned euid, bool in_user_namespace, std::string_view xdg_runtime_dir,
                        std::string_view user) {
    const bool honour_xdg = euid != 0 || (in_user_namespace && user != "root");
    if (!honour_xdg || xdg_runtime_dir.empty()) return {kDefaultRoot, false};
    return {std::string(xdg_runtime_dir) + "/arca-runtime", true};
}

RootDefault ownDefaultRoot() {
    const std::string xdg = environmentValue("XDG_RUNTIME_DIR");
    return defaultRoot(::geteuid(), !xdg.empty() && base::inUserNamespace(), xdg,
                       environmentValue("USER"));
}

Result<Globals> resolveGlobals(const Arguments& arguments) {
    Globals globals;
    globals.root_given = arguments.given("root");
    globals.root = arguments.text("root");
    if (!globals.root_given) {
        const RootDefault root = ownDefaultRoot();
        globals.root = root.path;
        globals.root_sticky = root.sticky;
    }
    std::string cwd;
    if (globals.root.empty() || globals.root.front() != '/') {
        char buffer[4096];
        if (::getcwd(buffer, sizeof buffer) == nullptr) return base::failErrno("getcwd");
        cwd = buffer;
    }
    globals.root = base::absolutePath(cwd, globals.root);
    if (globals.root == "/") {
        return fail(Code::kInvalidArgument, "option --root argument should not be set to /");
    }

    globals.rootless = arguments.given("rootless") ? arguments.text("rootless") : "auto";
    if (globals.rootless == "auto") {
    } else if (globals.rootless == "1" || globals.rootless == "true") {
        globals.rootless = "true";
    } else if (globals.rootless == "0" || globals.rootless == "false") {
        globals.rootless = "false";
    } else {
        return fail(Code::kInvalidArgument,
                    "invalid value for --rootless: " + base::printable(globals.rootless) +
                        ": not true, false or auto");
    }

    ARCA_CHECK(readCgroupManager(arguments, globals));
    globals.sandbox = arguments.text("sandbox");
    if (globals.sandbox.empty()) globals.sandbox = environmentValue("ARCA_SANDBOX");
    if (!globals.sandbox.empty()) ARCA_CHECK(checkSandbox(globals.sandbox));
    globals.configuration = arguments.text("configuration");
    return globals;
}

Result<InheritedFds> inheritedFds(std::string_view count_text, SocketActivation activation) {
    InheritedFds result;
    int listening = 0;
    if (activation == SocketActivation::kPass) {
        const auto pid = base::parseNumber<pid_t>(environmentValue("LISTEN_PID"));
        const auto count = base::parseNumber<int>(environmentValue("LISTEN_FDS"));
        if (pid && count && *pid == ::getpid() && *count > 0) {
            listening = *count;
            result.env = {"LISTEN_FDS=" + std::to_string(listening), "LISTEN_PID=1"};
            const std::string names = environmentValue("LISTEN_FDNAMES");
            if (!names.empty()) result.env.push_back("LISTEN_FDNAMES=" + names);
        }
    }
    int preserved = 0;
    if (!count_text.empty()) {
        const auto count = base::parseNumber<int>(count_text);
        constexpr int kMost = 65536;
        if (!count || *count < 0 || *count > kMost) {
            return fail(Code::kInvalidArgument,
                        "invalid value \"" + base::printable(count_text) + "\" for --preserve-fds");
        }
        preserved = *count;
    }
    for (int i = 0; i < listening + preserved; ++i) {
        if (::fcntl(kFirstInherited + i, F_GETFD) >= 0) continue;
        if (i < listening) {
            return fail(
                Code::kInvalidArgument,
                "LISTEN_FDS: descriptor " + std::to_string(kFirstInherited + i) + " is not open");
        }
        return fail(Code::kInvalidArgument,
                    "unable to stat preserved-fd " + std::to_string(i - listening) + " (of " +
                        std::to_string(preserved) + "): bad file descriptor");
    }
    result.count = listening + preserved;
    return result;
}

}  // namespace arca::runtime
