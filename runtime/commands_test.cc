// The pure parts of the commands: what they make of flags, files and errors.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/error_texts.h"
#include "runtime/bundle.h"
#include "runtime/context.h"
#include "runtime/error_report.h"
#include "runtime/exec_process.h"
#include "runtime/lifecycle.h"
#include "runtime/resources_update.h"
#include "runtime/scratch_dir_test.h"
#include "runtime/version.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::Error;
namespace texts = base::texts;

Line parse(std::vector<std::string> words) {
    words.insert(words.begin(), "arca-runtime");
    Line line = parseLine(words);
    BOOST_TEST_REQUIRE(!line.error);
    return line;
}

template <typename T>
std::string textOfError(const base::Result<T>& result) {
    return result ? "" : result.error().message();
}

struct Variable {
    const char* name;
    Variable(const char* variable, const std::string& value) : name(variable) {
        (void)::setenv(name, value.c_str(), 1);
    }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;
    ~Variable() { (void)::unsetenv(name); }
};

BOOST_AUTO_TEST_SUITE(globals)

BOOST_AUTO_TEST_CASE(the_default_root_depends_on_who_calls) {
    BOOST_TEST(defaultRoot(0, false, "/run/user/0", "root").path == "/run/arca-runtime");
    BOOST_TEST(defaultRoot(0, true, "/run/user/0", "root").path == "/run/arca-runtime");
    BOOST_TEST(defaultRoot(0, true, "/run/user/5", "app").path == "/run/user/5/arca-runtime");
    BOOST_TEST(defaultRoot(1000, false, "/run/user/1000", "app").path ==
               "/run/user/1000/arca-runtime");
    BOOST_TEST(defaultRoot(1000, false, "/run/user/1000", "app").sticky);
    BOOST_TEST(defaultRoot(1000, false, "", "app").path == "/run/arca-runtime");
}

BOOST_AUTO_TEST_CASE(values_are_checked) {
    const std::pair<std::vector<std::string>, const char*> bad[] = {
        {{"--root=/", "list"}, "option --root argument should not be set to /"},
        {{"--root=/a/..", "list"}, "option --root argument should not be set to /"},
        {{"--rootless=maybe", "list"},
         "invalid value for --rootless: maybe: not true, false or auto"},
        {{"--cgroup-manager=x", "list"}, "invalid cgroup-manager: x"},
        {{"--sandbox=x", "list"}, "invalid sandbox \"x\": not local, vm or connect=ADDRESS"}};
    for (const auto& [words, message] : bad) {
        BOOST_TEST(textOfError(resolveGlobals(parse(words).globals)) == message);
    }
    const auto good = resolveGlobals(
        parse({"--root=/a//b/", "--cgroup-manager", "systemd", "--rootless=1", "list"}).globals);
    BOOST_TEST_REQUIRE(good.has_value());
    BOOST_TEST(good->root == "/a/b");
    BOOST_TEST(good->systemd_cgroup);
    BOOST_TEST(good->rootless == "true");
    BOOST_TEST(good->sandbox.empty());  // left to the configuration
}

BOOST_AUTO_TEST_CASE(the_sandbox_may_come_from_the_environment) {
    const Variable variable("ARCA_SANDBOX", "vm");
    BOOST_TEST(resolveGlobals(parse({"list"}).globals)->sandbox == "vm");
    BOOST_TEST(resolveGlobals(parse({"--sandbox=local", "list"}).globals)->sandbox == "local");
}

BOOST_AUTO_TEST_CASE(preserved_descriptors_must_be_open) {
    BOOST_TEST(inheritedFds("", SocketActivation::kPass)->count == 0);
    BOOST_TEST(inheritedFds("0", SocketActivation::kPass)->count == 0);
    const auto missing = inheritedFds("1000", SocketActivation::kPass);
    BOOST_TEST(textOfError(missing).find("unable to stat preserved-fd ") == 0U);
    BOOST_TEST(textOfError(missing).find("(of 1000)") != std::string::npos);
    for (const char* text : {"-1", "x", "1x", "99999999"}) {
        BOOST_TEST(!inheritedFds(text, SocketActivation::kPass).has_value());
    }
}

BOOST_AUTO_TEST_CASE(activation_sockets_count_only_when_meant_for_this_process) {
    const ScratchDir scratch;
    std::vector<base::UniqueFd> fds;  // so that 3 is open, whatever the test program has
    while (::fcntl(3, F_GETFD) < 0) {
        fds.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    }
    const Variable count("LISTEN_FDS", "1");
    const Variable names("LISTEN_FDNAMES", "http");
    {
        const Variable pid("LISTEN_PID", std::to_string(::getpid()));
        const auto passed = inheritedFds("", SocketActivation::kPass);
        BOOST_TEST(passed->count == 1);
        BOOST_TEST(passed->env == (std::vector<std::string>{"LISTEN_FDS=1", "LISTEN_PID=1",
                                                            "LISTEN_FDNAMES=http"}),
                   boost::test_tools::per_element());
        BOOST_TEST(inheritedFds("", SocketActivation::kIgnore)->count == 0);
    }
    const Variable pid("LISTEN_PID", "1");
    BOOST_TEST(inheritedFds("", SocketActivation::kPass)->count == 0);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(errors)

BOOST_AUTO_TEST_CASE(commands_have_runcs_prefixes_and_codes) {
    const Error error(Code::kNotFound, texts::kContainerDoesNotExist);
    BOOST_TEST(inCommandsWords("create", error).message() ==
               "runc create failed: container does not exist");
    BOOST_TEST(inCommandsWords("run", error).message() ==
               "runc run failed: container does not exist");
    BOOST_TEST(inCommandsWords("exec", error).message() == "exec failed: container does not exist");
    for (const char* name : {"start", "kill", "delete", "state", "ps", "update"}) {
        BOOST_TEST(inCommandsWords(name, error).message() == "container does not exist");
        BOOST_TEST(failureCode(name) == 1);
    }
    BOOST_TEST(failureCode("exec") == 255);
}

// What docker and podman turn into exit code 127 must stay at the end.
BOOST_AUTO_TEST_CASE(what_the_process_met_is_marked_as_such) {
    const Error met(Code::kInternal, "exec: \"foo\": executable file not found in $PATH");
    BOOST_TEST(inCommandsWords("create", processError(met)).message() ==
               "runc create failed: unable to start container process: error during container "
               "init: exec: \"foo\": executable file not found in $PATH");
    const Error ours(Code::kSystem, "fork: resource temporarily unavailable", EAGAIN);
    BOOST_TEST(processError(ours).message() == ours.message());
    for (const Code code : {Code::kInvalidArgument, Code::kUnsupported, Code::kUnavailable,
                            Code::kFailedPrecondition, Code::kNotFound}) {
        BOOST_TEST(processError({code, "x"}).message() == "x");
    }
}

BOOST_AUTO_TEST_CASE(version_is_what_engines_parse) {
    const std::string text = versionText();
    BOOST_TEST(text.find("arca-runtime version ") == 0U);
    BOOST_TEST(text.find("\nspec: 1.") != std::string::npos);
    BOOST_TEST(text.back() == '\n');
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(bundles)

BOOST_AUTO_TEST_CASE(only_relative_sources_of_bind_mounts_change) {
    spec::Spec spec;
    const auto add = [&](const char* type, const char* source, std::vector<std::string> options) {
        spec::Mount mount;
        mount.type = type;
        mount.source = source;
        mount.options = std::move(options);
        spec.mounts.push_back(mount);
    };
    add("bind", "data", {});
    add("none", "../other", {"rbind", "ro"});
    add("bind", "/abs", {"bind"});
    add("tmpfs", "tmpfs", {"nosuid"});
    add("", "", {"bind"});
    resolveBindSources(spec, "/b/c1");
    const char* wanted[] = {"/b/c1/data", "/b/other", "/abs", "tmpfs", ""};
    for (size_t i = 0; i < spec.mounts.size(); ++i) BOOST_TEST(spec.mounts[i].source == wanted[i]);
}

BOOST_AUTO_TEST_CASE(cgroups_paths_and_the_systemd_driver) {
    Globals plain;
    Globals systemd;
    systemd.systemd_cgroup = true;
    for (const char* path : {"", "/a/b", "a/b", "/a:b:c", "a:b"}) {
        BOOST_TEST(checkCgroupsPath(path, plain).has_value());
    }
    BOOST_TEST(textOfError(checkCgroupsPath("s.slice:p:n", plain)).find("--systemd-cgroup") !=
               std::string::npos);
    BOOST_TEST(checkCgroupsPath("s.slice:p:n", systemd).has_value());
    Globals disabled;
    disabled.cgroups_disabled = true;
    BOOST_TEST(checkCgroupsPath("/a", disabled).has_value());
    spec::Resources resources;
    resources.devices.emplace_back();
    BOOST_TEST(checkNoLimits(resources).has_value());
    resources.pidsLimit = 5;
    BOOST_TEST(textOfError(checkNoLimits(resources)).find("linux.resources.pids") == 0U);
}

BOOST_AUTO_TEST_CASE(terminals_and_console_sockets) {
    const bool values[] = {false, true};
    for (const bool terminal : values) {
        for (const bool detach : values) {
            for (const bool socket : values) {
                const bool needed = terminal && detach;
                const std::string error = textOfError(checkTerminal(terminal, detach, socket));
                if (needed == socket) BOOST_TEST(error.empty());
                if (needed && !socket) BOOST_TEST(error == texts::kTtyNeedsConsoleSocket);
                if (!needed && socket) BOOST_TEST(error == texts::kConsoleSocketWithoutTty);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(a_bundle_is_read_from_where_it_really_is) {
    const ScratchDir scratch;
    BOOST_TEST(textOfError(loadBundle(scratch.path(), "")) ==
               "JSON specification file config.json not found");
    BOOST_TEST(textOfError(loadBundle(scratch.file("no"), "")).find("no such file or directory") !=
               std::string::npos);
    const std::string config = R"({"ociVersion":"1.0.2","root":{"path":"rootfs"},)"
                               R"("process":{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0}}})";
    writeText(scratch.file("config.json"), config);
    BOOST_TEST(textOfError(loadBundle(scratch.path(), "")).find("invalid rootfs") == 0U);
    BOOST_TEST(::mkdir(scratch.file("rootfs").c_str(), 0755) == 0);
    BOOST_TEST(::symlink(scratch.path().c_str(), scratch.file("link").c_str()) == 0);
    const auto bundle = loadBundle(scratch.file("link"), "");
    BOOST_TEST_REQUIRE(bundle.has_value());
    BOOST_TEST(bundle->path == scratch.path());
    BOOST_TEST(bundle->spec.root->path == scratch.file("rootfs"));
    writeText(scratch.file("other.json"), R"({"ociVersion":"1.0.2","root":{"path":"rootfs"}})");
    const auto without_process = loadBundle(scratch.path(), "other.json");
    BOOST_TEST_REQUIRE(without_process.has_value());  // start is what needs one
    BOOST_TEST(!without_process->spec.process);
    writeText(scratch.file("config.json"), "{");
    BOOST_TEST(textOfError(loadBundle(scratch.path(), "")).find("config.json: invalid JSON") == 0U);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(exec_process)

spec::Process ownProcess() {
    spec::Process process;
    process.args = {"sleep", "600"};
    process.env = {"PATH=/bin", "HOME=/root"};
    process.cwd = "/";
    process.user.gid = 5;
    process.user.additionalGids = {10};
    process.terminal = true;
    process.capabilities.emplace();
    process.capabilities->bounding = {"CAP_KILL"};
    return process;
}

BOOST_AUTO_TEST_CASE(flags_change_the_containers_process) {
    const Line line = parse({"exec",
                             "--user",
                             "1000",
                             "-g",
                             "4000",
                             "-e",
                             "A=1",
                             "--cwd",
                             "/tmp",
                             "--cap",
                             "kill",
                             "-c",
                             "CAP_CHOWN",
                             "--no-new-privs",
                             "--apparmor",
                             "p",
                             "--process-label",
                             "l",
                             "c",
                             "id",
                             "-G"});
    const auto process = processFromFlags(line.arguments, ownProcess(), true);
    BOOST_TEST_REQUIRE(process.has_value());
    BOOST_TEST(process->args == (std::vector<std::string>{"id", "-G"}),
               boost::test_tools::per_element());
    BOOST_TEST(!process->terminal);
    BOOST_TEST(process->user.uid == 1000U);
    BOOST_TEST(process->user.gid == 5U);
    // Field report 6: the container's own groups and the flag's.
    BOOST_TEST(process->user.additionalGids == (std::vector<uint32_t>{10, 4000}),
               boost::test_tools::per_element());
    BOOST_TEST(process->env == (std::vector<std::string>{"PATH=/bin", "HOME=/root", "A=1"}),
               boost::test_tools::per_element());
    BOOST_TEST(process->cwd == "/tmp");
    BOOST_TEST(
        process->capabilities->bounding == (std::vector<std::string>{"CAP_KILL", "CAP_CHOWN"}),
        boost::test_tools::per_element());
    BOOST_TEST(process->capabilities->effective.size() == 2U);
    BOOST_TEST(process->capabilities->ambient.empty());
    BOOST_TEST(process->noNewPrivileges);
    BOOST_TEST(process->apparmorProfile == "p");
    BOOST_TEST(process->selinuxLabel == "l");
}

// Field report 7: HOME is that of the user who runs, unless the configuration names one.
BOOST_AUTO_TEST_CASE(an_added_home_stays_with_its_user) {
    const Line other = parse({"exec", "--user", "1000:1000", "c", "id"});
    BOOST_TEST(processFromFlags(other.arguments, ownProcess(), false)->env.size() == 1U);
    BOOST_TEST(processFromFlags(other.arguments, ownProcess(), true)->env.size() == 2U);
    const Line same = parse({"exec", "--user", "0:7", "c", "id"});
    BOOST_TEST(processFromFlags(same.arguments, ownProcess(), false)->env.size() == 2U);
}

BOOST_AUTO_TEST_CASE(a_variable_of_the_flags_replaces_the_containers) {
    const Line line = parse({"exec", "-e", "PATH=/sbin", "-e", "A=1", "-e", "A=2", "c", "env"});
    BOOST_TEST(processFromFlags(line.arguments, ownProcess(), true)->env ==
                   (std::vector<std::string>{"HOME=/root", "PATH=/sbin", "A=2"}),
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(wrong_flags_are_errors) {
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"exec", "--user", "app", "c", "id"},
          {"exec", "-e", "=x", "c", "id"},
          {"exec", "-e", "NAME", "c", "id"},
          {"exec", "-g", "wheel", "c", "id"},
          {"exec", "--cwd", "rel", "c", "id"},
          {"exec", "c"}}) {
        BOOST_TEST_CONTEXT(words[1]) {
            const Line line = parse(words);
            BOOST_TEST(!processFromFlags(line.arguments, ownProcess(), true).has_value());
        }
    }
}

BOOST_AUTO_TEST_CASE(capabilities_that_are_not_limited_stay_so) {
    const Line line = parse({"exec", "--cap", "CAP_KILL", "c", "id"});
    spec::Process own = ownProcess();
    own.capabilities.reset();
    BOOST_TEST(!processFromFlags(line.arguments, own, true)->capabilities.has_value());
    own.capabilities.emplace();
    own.capabilities->inheritable = {"CAP_CHOWN"};
    const auto process = processFromFlags(line.arguments, own, true);
    BOOST_TEST(process->capabilities->ambient.size() == 1U);
    BOOST_TEST(process->capabilities->inheritable.size() == 2U);
}

BOOST_AUTO_TEST_CASE(a_process_file_is_checked_like_a_configuration) {
    const ScratchDir scratch;
    writeText(scratch.file("p"), R"({"user":{"uid":1000,"gid":1000,"additionalGids":[2000]},)"
                                 R"("args":["id"],"cwd":"/","terminal":true})");
    const auto process = processFromFile(scratch.file("p"));
    BOOST_TEST_REQUIRE(process.has_value());
    BOOST_TEST(process->terminal);
    BOOST_TEST(process->user.additionalGids.at(0) == 2000U);
    writeText(scratch.file("p"), R"({"args":["id"],"cwd":"rel","user":{"uid":0,"gid":0}})");
    BOOST_TEST(!processFromFile(scratch.file("p")).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(update)

BOOST_AUTO_TEST_CASE(flags_become_resources) {
    const Line line = parse({"update", "--memory", "32m", "--memory-swap=64m", "--pids-limit", "60",
                             "--cpu-quota", "-1", "--cpuset-cpus", "0-2", "c"});
    BOOST_TEST(resourcesFromFlags(line.arguments).value() ==
               R"({"cpu":{"quota":-1,"cpus":"0-2"},)"
               R"("memory":{"limit":33554432,"swap":67108864},"pids":{"limit":60}})");
}

// Field report 14: lifting the memory limit lifts both.
BOOST_AUTO_TEST_CASE(memory_without_a_limit_is_swap_without_one) {
    BOOST_TEST(resourcesFromFlags(parse({"update", "--memory", "-1", "c"}).arguments).value() ==
               R"({"memory":{"limit":-1,"swap":-1}})");
    BOOST_TEST(resourcesFromJson(R"({"memory":{"limit":-1,"swap":5}})").value() ==
               R"({"memory":{"limit":-1,"swap":5}})");
}

BOOST_AUTO_TEST_CASE(what_docker_sends_leaves_zeros_alone) {
    BOOST_TEST(resourcesFromJson(
                   R"({"memory":{"limit":83886080,"reservation":0,"swap":167772160,"kernel":0},)"
                   R"("cpu":{"shares":0,"quota":100000,"period":100000},"pids":{"limit":60},)"
                   R"("blockIO":{"weight":0}})")
                   .value() == R"({"memory":{"limit":83886080,"swap":167772160},)"
                               R"("cpu":{"quota":100000,"period":100000},"pids":{"limit":60}})");
    BOOST_TEST(resourcesFromJson(R"({"devices":[{"allow":true}],"cpu":{"cpus":""}})").value() ==
               "{}");
}

BOOST_AUTO_TEST_CASE(wrong_values_are_errors) {
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"update", "--memory", "much", "c"},
          {"update", "--cpu-quota", "1k", "c"},
          {"update", "--blkio-weight", "5000", "c"},
          {"update", "--l3-cache-schema", "L3:0=f", "c"}}) {
        BOOST_TEST(!resourcesFromFlags(parse(words).arguments).has_value());
    }
    for (const char* text : {"", "[]", "{", "7", R"({"memory":7})", R"({"cpu":{"shares":-5}})"}) {
        BOOST_TEST_CONTEXT(text) {
            BOOST_TEST(!resourcesFromJson(text).has_value());
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
