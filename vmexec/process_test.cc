// vmexec against the kernel: processes, users, namespaces, terminals. Each case runs the built
// program in a scratch rootfs.
#include <fcntl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "vmexec/test_body.h"

namespace {

using arca::spec::NamespaceType;
using arca::spec::Plan;
using arca::vmexec::testing::asRoot;
using arca::vmexec::testing::Body;
using arca::vmexec::testing::Bundle;
using arca::vmexec::testing::contains;
using arca::vmexec::testing::defaultPlan;
using arca::vmexec::testing::execPlan;
using arca::vmexec::testing::failureOf;
using arca::vmexec::testing::outputOf;
using arca::vmexec::testing::withUserNamespace;

std::string readTerminal(int fd) {
    std::string text;
    char buffer[512];
    ssize_t n = 0;
    while ((n = ::read(fd, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
    return text;  // EIO: the last slave is closed
}

}  // namespace

BOOST_AUTO_TEST_SUITE(vmexec_process, *boost::unit_test::precondition(asRoot))

BOOST_AUTO_TEST_CASE(program_runs_only_after_start_and_its_exit_code_is_seen) {
    const Bundle bundle;
    Body body(defaultPlan(bundle, {"sh", "-c", "echo hello; exit 7"}));
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    BOOST_TEST(body.gateIsOpen());  // and a look is no start
    BOOST_TEST_REQUIRE(body.start(), body.failure());
    BOOST_TEST(body.wait() == 7);
    BOOST_TEST(body.output() == "hello\n");
    BOOST_TEST(!body.gateIsOpen());
}

BOOST_AUTO_TEST_CASE(program_gets_its_stdio_and_nothing_else) {
    const Bundle bundle;
    BOOST_TEST(outputOf(defaultPlan(bundle, {}), "ls /proc/self/fd | tr '\\n' ' '") ==
               "0 1 2 3 ");  // 3 is the directory that ls reads
    // Not by way of the shell, which has signals of its own.
    Body body(defaultPlan(bundle, {"grep", "-E", "SigBlk|SigIgn|SigCgt", "/proc/self/status"}));
    BOOST_TEST(body.run() == 0, body.failure());
    BOOST_TEST(body.output() ==
               "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
               "SigCgt:\t0000000000000000\n");
}

BOOST_AUTO_TEST_CASE(missing_programs_fail_the_creation_with_the_texts_that_callers_match) {
    const Bundle bundle;
    bundle.write("/plain", "x", 0644);
    const auto failure = [&](const std::string& program) {
        return failureOf(defaultPlan(bundle, {program}));
    };
    BOOST_TEST(failure("nosuch") == "exec: \"nosuch\": executable file not found in $PATH");
    BOOST_TEST(failure("/x") == "exec: \"/x\": stat /x: no such file or directory");
    BOOST_TEST(failure("/etc") == "exec: \"/etc\": is a directory: permission denied");
    BOOST_TEST(failure("/plain") == "exec: \"/plain\": permission denied");
}

BOOST_AUTO_TEST_CASE(file_that_is_no_program_fails_the_start) {
    const Bundle bundle;
    bundle.write("/garbage",
                 "\x7f"
                 "ELFgarbage",
                 0755);
    Body body(defaultPlan(bundle, {"/garbage"}));
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    BOOST_TEST(!body.start());
    BOOST_TEST(body.failure() == "exec /garbage: exec format error");
    BOOST_TEST(body.wait() == 1);
}

BOOST_AUTO_TEST_CASE(end_of_file_before_commit_ends_the_process) {
    const Bundle bundle;
    Body before_go(defaultPlan(bundle, {"true"}));
    BOOST_TEST_REQUIRE(before_go.pid());
    before_go.closeSync();
    BOOST_TEST(before_go.wait() == 1);
    Body before_commit(defaultPlan(bundle, {"true"}));
    BOOST_TEST_REQUIRE(before_commit.ready(), before_commit.failure());
    before_commit.closeSync();
    BOOST_TEST(before_commit.wait() == 1);
}

BOOST_AUTO_TEST_CASE(waiting_init_dies_by_signals_although_it_is_pid_1) {
    const Bundle bundle;
    for (const int number : {SIGTERM, SIGHUP, SIGUSR1, SIGRTMIN + 3}) {
        Body body(defaultPlan(bundle, {"sleep", "60"}));
        BOOST_TEST_REQUIRE(body.ready(), body.failure());
        body.commit();
        (void)::kill(body.initPid(), SIGWINCH);  // ends nothing
        BOOST_TEST(body.gateIsOpen());
        (void)::kill(body.initPid(), number);
        BOOST_TEST(body.wait() == 128 + number);
    }
}

BOOST_AUTO_TEST_CASE(held_container_keeps_nothing_open_but_stdio_gate_and_signals) {
    const Bundle bundle;
    Body body(defaultPlan(bundle, {"sleep", "60"}));
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    const std::string dir = "/proc/" + std::to_string(body.initPid()) + "/fd";
    BOOST_TEST(arca::base::listDir(AT_FDCWD, dir).value().size() == 5U);
    struct stat st {};
    BOOST_TEST_REQUIRE(::stat((dir + "/0").c_str(), &st) == 0);
    // The container's own /dev/null, not the one of the host.
    struct stat host {};
    BOOST_TEST_REQUIRE(::stat("/dev/null", &host) == 0);
    BOOST_TEST(st.st_dev != host.st_dev);
    BOOST_TEST(st.st_rdev == host.st_rdev);
}

// Field report 13.
BOOST_AUTO_TEST_CASE(user_groups_umask_and_capabilities_are_the_ones_asked_for) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.spec.process->user = {1000, 1000, 0077, {2000, 3000}, ""};
    plan.spec.process->capabilities = arca::spec::Capabilities{
        {"CAP_KILL", "CAP_NOT_REAL"}, {"CAP_KILL"}, {"CAP_KILL"}, {"CAP_KILL"}, {"CAP_KILL"}};
    plan.spec.process->noNewPrivileges = true;
    plan.spec.process->args = {
        "sh", "-c",
        "id -u; id -G; umask; grep -E 'Cap|NoNew' /proc/self/status; test -w /dev/stdout"};
    Body body(plan);
    BOOST_TEST(body.run() == 0, body.failure());
    BOOST_TEST(body.output() ==
               "1000\n1000 2000 3000\n0077\nCapInh:\t0000000000000020\nCapPrm:\t0000000000000020\n"
               "CapEff:\t0000000000000020\nCapBnd:\t0000000000000020\nCapAmb:\t0000000000000020\n"
               "NoNewPrivs:\t1\n");
    BOOST_TEST_REQUIRE(body.warnings().size() == 1U);
    BOOST_TEST(contains(body.warnings().front(), "CAP_NOT_REAL"));
}

// Field report 9.
BOOST_AUTO_TEST_CASE(cwd_needs_to_be_open_to_one_of_the_two_users) {
    const Bundle bundle;
    BOOST_TEST_REQUIRE(::mkdir(bundle.rootfs("/priv").c_str(), 0700) == 0);
    Plan plan = defaultPlan(bundle, {});
    plan.spec.process->user.uid = 1000;
    plan.spec.process->cwd = "/priv";
    BOOST_TEST(outputOf(plan, "pwd") == "/priv\n");
    plan.spec.process->cwd = "/new/dir";
    BOOST_TEST(outputOf(plan, "pwd; stat -c %a /new/dir") == "/new/dir\n755\n");
    plan.spec.process->args = {"true"};
    plan.spec.process->cwd = "/proc/self/fd/7";
    BOOST_TEST(contains(failureOf(plan), "chdir to cwd (\"/proc/self/fd/7\")"));
    // a) open to the container's user, not to the starting one: in a user namespace.
    BOOST_TEST_REQUIRE(::mkdir(bundle.rootfs("/home").c_str(), 0700) == 0);
    BOOST_TEST_REQUIRE(::chown(bundle.rootfs("/home").c_str(), 101000, 101000) == 0);
    plan.spec.process->cwd = "/home";
    BOOST_TEST(outputOf(withUserNamespace(plan), "pwd") == "/home\n");
}

// Field report 11.
// Field report 12.
BOOST_AUTO_TEST_CASE(user_namespace_has_its_maps_and_its_own_root) {
    const Bundle bundle;
    const Plan plan = withUserNamespace(defaultPlan(bundle, {}));
    const std::string text = outputOf(
        plan,
        "id -u; cat /proc/self/uid_map | tr -s ' '; touch /dev/shm/x; stat -c %u /dev/shm/x; "
        "stat -c %t:%T /dev/null; echo x >/dev/null; hostname new && hostname");
    BOOST_TEST(text == "0\n 0 100000 2000\n0\n1:3\nnew\n");
}

BOOST_AUTO_TEST_CASE(namespace_paths_are_checked_before_anything_is_joined) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {"true"});
    plan.spec.linux.namespaces[1].path = "/proc/self/ns/ipc";
    BOOST_TEST(contains(failureOf(plan), "is a namespace of another type"));
    plan.spec.linux.namespaces[1].path = "/etc/passwd";
    BOOST_TEST(contains(failureOf(plan), "not a namespace"));
    plan.spec.linux.namespaces[1].path = "/nosuch";
    BOOST_TEST(contains(failureOf(plan), "no such file or directory"));
}

BOOST_AUTO_TEST_CASE(namespaces_by_path_are_joined) {
    const Bundle bundle;
    Plan first = withUserNamespace(defaultPlan(bundle, {"sleep", "60"}));
    first.spec.hostname = "pod";
    Body pod(first);
    BOOST_TEST_REQUIRE(pod.ready(), pod.failure());
    pod.commit();
    BOOST_TEST_REQUIRE(pod.start(), pod.failure());
    const std::string ns = "/proc/" + std::to_string(pod.initPid()) + "/ns/";
    Plan member = defaultPlan(bundle, {});
    member.spec.linux.namespaces = {
        {NamespaceType::kMount, ""},       {NamespaceType::kUts, ns + "uts"},
        {NamespaceType::kIpc, ns + "ipc"}, {NamespaceType::kNetwork, ns + "net"},
        {NamespaceType::kPid, ns + "pid"}, {NamespaceType::kUser, ns + "user"}};
    BOOST_TEST(outputOf(member, "hostname; test $$ != 1; cat /proc/1/cmdline | tr '\\0' ' '") ==
               "pod\nsleep 60 ");
}

// A mount namespace that is not the container's own keeps its mount table.
BOOST_AUTO_TEST_CASE(hooks_run_before_the_root_changes_and_before_the_program) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.wait_for_hooks = true;
    const std::string mark = bundle.path() + "/hook";
    arca::spec::Hook create;
    create.path = "/bin/sh";
    create.args = {"sh", "-c", "pwd >" + mark + "; cat >>" + mark};
    arca::spec::Hook start;
    start.path = "/bin/sh";
    start.args = {"sh", "-c", "id -u >/tmp/hook; cat >>/tmp/hook"};
    plan.spec.hooks.createContainer = {create};
    plan.spec.hooks.startContainer = {start};
    plan.spec.process->user.uid = 1000;
    plan.spec.process->args = {"cat", "/tmp/hook"};
    Body body(plan);
    BOOST_TEST(body.run() == 0, body.failure());
    BOOST_TEST(body.hooks_asked);
    const std::string created = arca::base::readFile(mark).value();
    BOOST_TEST(contains(created, bundle.rootfs() + "\n{"));
    BOOST_TEST(contains(created, "\"status\":\"created\",\"pid\":1,"));
    const std::string started = body.output();
    BOOST_TEST(started.starts_with("1000\n{"));
    BOOST_TEST(contains(started, "\"status\":\"created\",\"pid\":1,"));
    plan.spec.hooks.createContainer.front().args = {"sh", "-c", "echo why >&2; exit 3"};
    BOOST_TEST(failureOf(plan) ==
               "error running createContainer hook #0: exit status 3, stdout: , stderr: why");
}

BOOST_AUTO_TEST_CASE(terminal_is_the_containers_and_has_the_size_of_the_last_resize) {
    const Bundle bundle;
    Plan plan = defaultPlan(
        bundle, {"sh", "-c", "tty; stty size; stat -c '%u %t' /dev/console; echo x >/dev/tty"});
    plan.spec.process->terminal = true;
    plan.spec.process->consoleSize = arca::spec::ConsoleSize{30, 90};
    plan.spec.process->user.uid = 1000;
    {
        Body body(plan);
        BOOST_TEST_REQUIRE(body.ready(), body.failure());
        body.commit();
        BOOST_TEST_REQUIRE(body.start(), body.failure());
        BOOST_TEST(readTerminal(body.console()) == "/dev/pts/0\r\n30 90\r\n1000 88\r\nx\r\n");
        BOOST_TEST(body.wait() == 0);
    }
    Body body(plan);
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    BOOST_TEST_REQUIRE(body.start(1, "40 120"), body.failure());
    BOOST_TEST(contains(readTerminal(body.console()), "\r\n40 120\r\n"));
    BOOST_TEST(body.wait() == 0);
}

// CVE-2025-52565.
BOOST_AUTO_TEST_CASE(console_is_not_bound_through_a_symlink) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {"true"});
    plan.spec.process->terminal = true;
    std::erase_if(plan.spec.mounts, [](const auto& mount) { return mount.destination == "/dev"; });
    BOOST_TEST_REQUIRE(::symlink("/proc/sysrq-trigger", bundle.rootfs("/dev/console").c_str()) ==
                       0);
    BOOST_TEST(contains(failureOf(plan), "/dev/console: neither a device nor a file"));
}

BOOST_AUTO_TEST_CASE(exec_joins_everything_that_the_init_is_in) {
    const Bundle bundle;
    for (const bool with_userns : {false, true}) {
        Plan plan = defaultPlan(bundle, {"sleep", "60"});
        if (with_userns) plan = withUserNamespace(plan);
        plan.spec.hostname = "joined";
        plan.spec.linux.namespaces.push_back({NamespaceType::kTime, ""});
        plan.spec.linux.timeOffsets = {{"boottime", {1000000, 0}}};
        Body init(plan);
        BOOST_TEST_REQUIRE(init.ready(), init.failure());
        init.commit();
        BOOST_TEST_REQUIRE(init.start(), init.failure());
        Plan exec = execPlan(plan, init.initPid(),
                             {"sh", "-c",
                              "hostname; cat /proc/1/cmdline | tr '\\0' ' '; "
                              "for i in user mnt pid net ipc uts time; do test $(readlink "
                              "/proc/1/ns/$i) = $(readlink /proc/self/ns/$i) || echo $i; done; "
                              "test $(head -c 7 /proc/uptime) -gt 900000 || echo time; pwd"});
        exec.spec.process->cwd = "/tmp";
        Body body(exec);
        BOOST_TEST(body.run() == 0, body.failure());
        BOOST_TEST(body.output() == "joined\nsleep 60 /tmp\n");
    }
}

BOOST_AUTO_TEST_CASE(exec_in_a_terminal_and_its_failures) {
    const Bundle bundle;
    const Plan plan = defaultPlan(bundle, {"sleep", "60"});
    Body init(plan);
    BOOST_TEST_REQUIRE(init.ready(), init.failure());
    init.commit();
    BOOST_TEST_REQUIRE(init.start(), init.failure());
    Plan exec = execPlan(plan, init.initPid(), {"tty"});
    exec.spec.process->terminal = true;
    Body body(exec);
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    BOOST_TEST_REQUIRE(body.start(), body.failure());
    BOOST_TEST(readTerminal(body.console()) == "/dev/pts/0\r\n");
    BOOST_TEST(body.wait() == 0);
    exec.spec.process->terminal = false;
    exec.spec.process->args = {"nosuch"};
    BOOST_TEST(failureOf(exec) == "exec: \"nosuch\": executable file not found in $PATH");
    // Another process of that number.
    exec.init_start_time_ticks += 1;
    BOOST_TEST(contains(failureOf(exec), "no such process"));
}

BOOST_AUTO_TEST_CASE(seccomp_filter_is_for_the_program_alone) {
    const Bundle bundle;
    // getcwd fails with EPERM; everything else is allowed.
    struct Instruction {
        uint16_t code;
        uint8_t jt, jf;
        uint32_t k;
    };
    const Instruction program[] = {{0x20, 0, 0, 0},
                                   {0x15, 0, 1, SYS_getcwd},
                                   {0x06, 0, 0, SECCOMP_RET_ERRNO | 1U},
                                   {0x06, 0, 0, SECCOMP_RET_ALLOW}};
    Plan plan = defaultPlan(bundle, {});
    plan.seccomp_program.assign(reinterpret_cast<const char*>(program), sizeof program);
    plan.spec.process->cwd = "/tmp";
    plan.spec.process->capabilities =
        arca::spec::Capabilities{{"CAP_KILL"}, {"CAP_KILL"}, {"CAP_KILL"}, {}, {}};
    const std::string script =
        "sh -c pwd >/dev/null 2>&1 || echo denied; grep -E 'CapPrm|CapEff|Seccomp:' "
        "/proc/self/status";
    // The program gets no capability that loading the filter took.
    BOOST_TEST(contains(outputOf(plan, script),
                        "CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nSeccomp:\t2\n"));
    plan.spec.process->user.uid = 1000;
    BOOST_TEST(contains(outputOf(plan, script),
                        "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nSeccomp:\t2\n"));
    plan.spec.process->noNewPrivileges = true;
    plan.spec.process->capabilities.reset();
    BOOST_TEST(contains(outputOf(plan, script), "Seccomp:\t2\n"));
}

BOOST_AUTO_TEST_CASE(limits_priorities_and_personality) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.spec.process->rlimits = {{RLIMIT_NOFILE, "RLIMIT_NOFILE", 100, 200}};
    plan.spec.process->oomScoreAdj = 100;
    plan.spec.process->scheduler = arca::spec::Scheduler{"SCHED_BATCH", 5, 0, {}, 0, 0, 0};
    plan.spec.linux.personality = arca::spec::Personality{"LINUX32", {}};
    const std::string text =
        outputOf(plan,
                 "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj /proc/self/personality; "
                 "grep 'policy' /proc/self/sched 2>/dev/null | tr -s ' '; true");
    BOOST_TEST(text.starts_with("100\n200\n100\n00000008\n"));
}

BOOST_AUTO_TEST_CASE(security_module_that_the_kernel_lacks_is_named) {
    if (::access("/sys/module/apparmor", F_OK) == 0) {
        BOOST_TEST_MESSAGE("skipped: this kernel has AppArmor");
        return;
    }
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {"true"});
    plan.spec.process->apparmorProfile = "some";
    BOOST_TEST(failureOf(plan) == "apparmorProfile some: AppArmor is not enabled in this kernel");
}

BOOST_AUTO_TEST_CASE(missing_preserved_descriptor_is_an_error) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {"true"});
    plan.preserve_fds = 3;
    BOOST_TEST(failureOf(plan).starts_with("unable to stat preserved-fd "));
}

BOOST_AUTO_TEST_CASE(configuration_without_a_process_waits_and_fails_at_start) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.spec.process.reset();
    Body body(plan);
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    BOOST_TEST(!body.start());
    BOOST_TEST(body.failure() == "process property must not be empty");
    BOOST_TEST(body.wait() == 1);
}

BOOST_AUTO_TEST_SUITE_END()
