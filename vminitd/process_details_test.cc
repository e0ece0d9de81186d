#include "vminitd/process_details.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstdlib>
#include <ctime>

namespace arca::vminitd {
namespace {

BOOST_AUTO_TEST_SUITE(process_details)

BOOST_AUTO_TEST_CASE(of_this_process) {
    const auto details = processDetails(::getpid());
    BOOST_TEST_REQUIRE(details.has_value());
    BOOST_TEST(details->pid == ::getpid());
    BOOST_TEST(details->parent == ::getppid());
    BOOST_TEST(details->uid == ::geteuid());
    const time_t now = std::time(nullptr);
    BOOST_TEST(details->started <= now + 1);
    BOOST_TEST(details->started > now - 600);
    BOOST_TEST(details->cpu_ms < 600'000U);
    BOOST_TEST(details->command.find("_test") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_terminal_has_its_name) {
    const int master = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    BOOST_TEST_REQUIRE(master >= 0);
    BOOST_TEST_REQUIRE(::unlockpt(master) == 0);
    const std::string name = ::ptsname(master);
    int ready[2];
    BOOST_TEST_REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        // A session leader without a terminal gets the first one that it opens.
        const bool got = ::setsid() > 0 && ::open(name.c_str(), O_RDWR | O_CLOEXEC) >= 0;
        if (::write(ready[1], got ? "y" : "n", 1) != 1) ::_exit(1);
        ::pause();
        ::_exit(0);
    }
    char got = 0;
    BOOST_TEST(::read(ready[0], &got, 1) == 1);
    BOOST_TEST(got == 'y');
    const auto details = processDetails(child);
    (void)::kill(child, SIGKILL);
    (void)::waitpid(child, nullptr, 0);
    for (const int fd : {master, ready[0], ready[1]}) ::close(fd);
    BOOST_TEST_REQUIRE(details.has_value());
    BOOST_TEST("/dev/" + details->terminal == name);
}

BOOST_AUTO_TEST_CASE(what_has_ended_is_defunct_until_it_is_reaped_and_then_nothing) {
    const pid_t child = ::fork();
    if (child == 0) {
        (void)::prctl(PR_SET_NAME, "a) (b");
        ::_exit(0);
    }
    siginfo_t info{};
    BOOST_TEST_REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
    const auto details = processDetails(child);
    BOOST_TEST_REQUIRE(details.has_value());
    BOOST_TEST(details->command == "[a) (b] <defunct>");
    BOOST_TEST(details->parent == ::getpid());
    (void)::waitpid(child, nullptr, 0);
    BOOST_TEST(!processDetails(child).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd
