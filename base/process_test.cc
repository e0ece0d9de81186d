#include "base/process.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/temp_dir.h"

namespace arca::base {
namespace {

using std::chrono::milliseconds;

// A child that sleeps until it is killed, or leaves at once with `code`.
pid_t startChild(std::optional<int> code) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    while (!code) (void)::pause();
    ::_exit(*code);
}

BOOST_AUTO_TEST_SUITE(process)

BOOST_AUTO_TEST_CASE(this_process_is_alive_by_pid_and_start_time) {
    const auto start = processStartTime(::getpid());
    BOOST_TEST_REQUIRE(start.has_value());
    BOOST_TEST(isAlive({::getpid(), *start}));
    BOOST_TEST(!isAlive({::getpid(), *start + 1}));
    BOOST_TEST(openPidfd(ProcessIdentity{::getpid(), *start}).has_value());
    const auto other = openPidfd(ProcessIdentity{::getpid(), *start + 1});
    BOOST_TEST_REQUIRE(!other.has_value());
    BOOST_TEST((other.error().code() == Code::kNotFound));
}

BOOST_AUTO_TEST_CASE(pids_that_are_none_are_not_alive) {
    BOOST_TEST(!isAlive({0, 0}));
    BOOST_TEST(!isAlive({-1, 0}));
    BOOST_TEST(!processStartTime(0x7ffffff0).has_value());
    const auto gone = openPidfd(0x3ffffff0);
    BOOST_TEST_REQUIRE(!gone.has_value());
    BOOST_TEST((gone.error().code() == Code::kNotFound));
}

BOOST_AUTO_TEST_CASE(a_zombie_counts_as_ended_but_has_a_start_time) {
    const pid_t pid = startChild(7);
    const auto pidfd = openPidfd(pid);
    BOOST_TEST_REQUIRE(pidfd.has_value());
    BOOST_TEST(waitExit(pidfd->get(), milliseconds(10000)).value());
    const auto start = processStartTime(pid);
    BOOST_TEST_REQUIRE(start.has_value());
    BOOST_TEST(!isAlive({pid, *start}));
    BOOST_TEST(reapChild(pid).value() == 7);
    const auto late = sendSignal(pidfd->get(), SIGTERM);
    BOOST_TEST_REQUIRE(!late.has_value());
    BOOST_TEST((late.error().code() == Code::kNotFound));
    BOOST_TEST(late.error().message() == "send signal: no such process");
    BOOST_TEST(!processStartTime(pid).has_value());
    // Where the kernel tells at all, it tells the truth.
    BOOST_TEST(exitCodeOf(pidfd->get()).value_or(7) == 7);
}

BOOST_AUTO_TEST_CASE(waiting_for_a_living_process_ends_at_the_timeout) {
    const pid_t pid = startChild(std::nullopt);
    const auto pidfd = openPidfd(pid);
    BOOST_TEST_REQUIRE(pidfd.has_value());
    BOOST_TEST(!waitExit(pidfd->get(), milliseconds(1)).value());
    BOOST_TEST(!exitCodeOf(pidfd->get()).has_value());
    BOOST_TEST(sendSignal(pidfd->get(), SIGKILL).has_value());
    BOOST_TEST(reapChild(pid).value() == 137);
}

// Field report 20.
BOOST_AUTO_TEST_CASE(exit_codes_are_those_of_a_shell) {
    BOOST_TEST(exitCodeFromWaitStatus(W_EXITCODE(44, 0)) == 44);
    BOOST_TEST(exitCodeFromWaitStatus(SIGKILL) == 137);
    BOOST_TEST(exitCodeFromWaitStatus(SIGSEGV | WCOREFLAG) == 139);
}

BOOST_AUTO_TEST_CASE(a_process_that_is_no_child_cannot_be_reaped) {
    const auto result = reapChild(1);
    BOOST_TEST_REQUIRE(!result.has_value());
    BOOST_TEST(result.error().sysErrno() == ECHILD);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
