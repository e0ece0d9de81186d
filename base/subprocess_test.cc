#include "base/subprocess.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "base/process.h"
#include "base/strings.h"
#include "base/temp_dir.h"
#include "base/unique_fd.h"

namespace arca::base {
namespace {

using std::chrono::milliseconds;

Command shell(std::string script) {
    Command command;
    command.path = "/bin/sh";
    command.args = {"sh", "-c", std::move(script)};
    command.env = {"PATH=/usr/bin:/bin"};
    return command;
}

BOOST_AUTO_TEST_SUITE(subprocess)

BOOST_AUTO_TEST_CASE(output_and_exit_code_come_back) {
    const auto outcome = runCommand(shell("echo out; echo err >&2; exit 3"));
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->exit_code == 3);
    BOOST_TEST(outcome->signal == 0);
    BOOST_TEST(outcome->out == "out\n");
    BOOST_TEST(outcome->err == "err\n");
}

BOOST_AUTO_TEST_CASE(a_signal_is_told_apart_from_an_exit_code) {
    const auto outcome = runCommand(shell("kill -KILL $$"));
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->signal == SIGKILL);
    BOOST_TEST(outcome->exit_code == 137);
}

BOOST_AUTO_TEST_CASE(input_is_given_whole_and_then_ends) {
    Command command = shell("cat");
    command.input = std::string(1 << 20U, 'i');
    command.output_limit_bytes = 2 << 20U;
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST((outcome->out == command.input));
}

BOOST_AUTO_TEST_CASE(a_program_may_leave_its_input_unread) {
    Command command = shell("exec 0<&-; exit 0");
    command.input = std::string(1 << 20U, 'i');
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->exit_code == 0);
}

BOOST_AUTO_TEST_CASE(environment_and_directory_are_exactly_the_given_ones) {
    const TempDir dir;
    Command command = shell("pwd; env");
    command.env = {"A=1", "PATH=/usr/bin:/bin"};
    command.cwd = dir.path();
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(outcome.has_value());
    const auto lines = split(outcome->out, '\n');
    BOOST_TEST(lines[0] == dir.path());
    for (size_t i = 1; i < lines.size(); ++i) {
        const std::string_view name = lines[i].substr(0, lines[i].find('='));
        const bool known = name == "A" || name == "PATH" || name == "PWD" || name == "_" ||
                           name == "SHLVL" || name == "OLDPWD" || name.empty();
        BOOST_TEST(known, name);
    }
}

BOOST_AUTO_TEST_CASE(only_three_descriptors_reach_the_program) {
    const UniqueFd leaked(::open("/dev/null", O_RDONLY));  // on purpose without O_CLOEXEC
    const auto outcome = runCommand(shell("ls /proc/self/fd"));
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->out == "0\n1\n2\n3\n");  // 3 is ls's own, of the directory
}

BOOST_AUTO_TEST_CASE(what_cannot_start_is_an_error_that_says_why) {
    Command command;
    command.path = "/no/such/program";
    const auto missing = runCommand(command);
    BOOST_TEST_REQUIRE(!missing.has_value());
    BOOST_TEST((missing.error().code() == Code::kNotFound));
    BOOST_TEST(missing.error().message() == "exec /no/such/program: no such file or directory");
    command.path = "/";
    BOOST_TEST(runCommand(command).error().sysErrno() == EACCES);
    command = shell("true");
    command.cwd = "/no/such/dir";
    BOOST_TEST(runCommand(command).error().message() ==
               "exec /bin/sh: chdir to /no/such/dir: no such file or directory");
}

BOOST_AUTO_TEST_CASE(output_is_cut_at_the_limit_but_the_program_ends) {
    Command command = shell("head -c 1000000 /dev/zero; echo end >&2");
    command.output_limit_bytes = 1000;
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->out.size() == 1000U);
    BOOST_TEST(outcome->err == "end\n");
}

BOOST_AUTO_TEST_CASE(the_time_limit_takes_the_children_too) {
    const TempDir dir;
    Command command = shell("sleep 1000 & echo $! > " + dir.path() + "/pid; wait");
    command.timeout = milliseconds(300);
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(!outcome.has_value());
    BOOST_TEST((outcome.error().code() == Code::kDeadlineExceeded));
    BOOST_TEST(outcome.error().message() == "/bin/sh ran past specified timeout of 0.3s");
    const auto text = readFile(dir.path() + "/pid");
    BOOST_TEST_REQUIRE(text.has_value());
    const auto pid = parseNumber<pid_t>(trim(*text));
    BOOST_TEST_REQUIRE(pid.has_value());
    // Not our child: it is gone or about to be.
    const auto pidfd = openPidfd(*pid);
    if (pidfd) BOOST_TEST(waitExit(pidfd->get(), milliseconds(10000)).value());
}

// A reader that empties the pipe until it is empty never looks at the clock here.
// Each notes its pid: one in a session of its own, and one whose parents have left it besides.
BOOST_AUTO_TEST_CASE(the_time_limit_takes_what_has_left_the_group_too) {
    const TempDir dir;
    Command command = shell(
        "setsid sh -c 'echo $$ > session; exec sleep 1000' & "
        "(setsid sh -c '(sh -c \"echo \\$\\$ > orphan; exec sleep 1000\" &)' &); "
        "while ! [ -s session ] || ! [ -s orphan ]; do sleep 0.01; done; touch there; sleep 1000");
    command.cwd = dir.path();
    command.timeout = milliseconds(2000);
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(!outcome.has_value());
    BOOST_TEST((outcome.error().code() == Code::kDeadlineExceeded));
    BOOST_TEST_REQUIRE(readFile("there", 16, dir.fd()).has_value());
    for (const char* name : {"session", "orphan"}) {
        const auto pid = parseNumber<pid_t>(trim(readFile(name, 64, dir.fd()).value()));
        BOOST_TEST_REQUIRE(pid.has_value());
        const auto start = processStartTime(*pid);
        BOOST_TEST(!(start && isAlive({*pid, *start})), name);
    }
}

BOOST_AUTO_TEST_CASE(what_a_program_leaves_behind_within_its_time_lives_on) {
    const TempDir dir;
    Command command = shell(
        "setsid sh -c 'echo $$ > left; exec sleep 1000' >/dev/null 2>&1 & "
        "while ! [ -s left ]; do sleep 0.01; done; exit 4");
    command.cwd = dir.path();
    command.timeout = std::chrono::seconds(20);
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->exit_code == 4);
    const auto pid = parseNumber<pid_t>(trim(readFile("left", 64, dir.fd()).value()));
    BOOST_TEST_REQUIRE(pid.has_value());
    const auto pidfd = openPidfd(*pid);
    BOOST_TEST_REQUIRE(pidfd.has_value());
    BOOST_TEST(sendSignal(pidfd->get(), SIGKILL).has_value());
}

BOOST_AUTO_TEST_CASE(the_time_limit_holds_for_a_program_that_writes_without_end) {
    Command command = shell("exec cat /dev/zero");
    command.timeout = milliseconds(300);
    const auto outcome = runCommand(command);
    BOOST_TEST_REQUIRE(!outcome.has_value());
    BOOST_TEST((outcome.error().code() == Code::kDeadlineExceeded));
}

BOOST_AUTO_TEST_CASE(grandchildren_that_keep_the_output_open_are_not_waited_for) {
    const TempDir dir;
    const auto outcome =
        runCommand(shell("sleep 1000 & echo $! > " + dir.path() + "/pid; echo done"));
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->out == "done\n");
    const auto text = readFile(dir.path() + "/pid");
    const auto pidfd = openPidfd(parseNumber<pid_t>(trim(text.value())).value());
    BOOST_TEST_REQUIRE(pidfd.has_value());
    BOOST_TEST(sendSignal(pidfd->get(), SIGKILL).has_value());
}

BOOST_AUTO_TEST_CASE(the_programs_signals_are_as_after_login) {
    sigset_t blocked;
    sigset_t before;
    (void)::sigemptyset(&blocked);
    (void)::sigaddset(&blocked, SIGUSR1);
    (void)::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    const auto outcome = runCommand(shell("grep -E 'Sig(Blk|Ign)' /proc/self/status"));
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    BOOST_TEST_REQUIRE(outcome.has_value());
    BOOST_TEST(outcome->out == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

BOOST_AUTO_TEST_CASE(no_descriptor_and_no_pending_signal_is_left) {
    const size_t before = openFdCount();
    Command command = shell("exec 0<&-; exit 0");
    command.input = std::string(1 << 20U, 'i');
    (void)runCommand(command);
    command.path = "/no/such";
    (void)runCommand(command);
    BOOST_TEST(openFdCount() == before);
    sigset_t pending;
    (void)::sigpending(&pending);
    BOOST_TEST(sigismember(&pending, SIGPIPE) == 0);
}

// A caller that reads its signals from a descriptor would take the SIGPIPE for one sent to it.
BOOST_AUTO_TEST_CASE(a_caller_that_has_sigpipe_blocked_sees_none) {
    sigset_t blocked;
    sigset_t before;
    (void)::sigemptyset(&blocked);
    (void)::sigaddset(&blocked, SIGPIPE);
    (void)::pthread_sigmask(SIG_BLOCK, &blocked, &before);
    Command command = shell("exec 0<&-; exit 0");
    command.input = std::string(1 << 20U, 'i');
    const bool ran = runCommand(command).has_value();
    sigset_t pending;
    (void)::sigpending(&pending);
    const timespec no_wait{};
    (void)::sigtimedwait(&blocked, nullptr, &no_wait);
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    BOOST_TEST(ran);
    BOOST_TEST(sigismember(&pending, SIGPIPE) == 0);
}

// A regular file stands for cgroup.procs: what is written to it is the same.
BOOST_AUTO_TEST_CASE(a_program_is_put_into_its_cgroup_and_loses_the_callers_protection) {
    const TempDir dir;
    const std::string procs = dir.path() + "/cgroup.procs";
    {
        const UniqueFd made(::open(procs.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        BOOST_TEST_REQUIRE(made.valid());
    }
    const auto own = readFile("/proc/self/oom_score_adj");
    BOOST_TEST_REQUIRE(writeControlFile(AT_FDCWD, "/proc/self/oom_score_adj", "500").has_value());
    Command command;
    command.path = "/bin/cat";
    command.args = {"cat", "/proc/self/oom_score_adj"};
    const auto with = runCommand(command);
    command.cgroup_procs = procs;
    command.plain_oom_score = true;
    const auto without = runCommand(command);
    (void)writeControlFile(AT_FDCWD, "/proc/self/oom_score_adj", *own);
    BOOST_TEST_REQUIRE((with && without));
    BOOST_TEST(with->out == "500\n");
    BOOST_TEST(without->out == "0\n");
    BOOST_TEST(readFile(procs).value_or("") == "0");
    command.cgroup_procs = dir.path() + "/missing";
    BOOST_TEST(runCommand(command).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
