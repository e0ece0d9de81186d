#include "base/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cerrno>

#include "base/scope_exit.h"

namespace arca::base {
namespace {

UniqueFd openNull() {
    return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

bool isOpen(int fd) {
    return ::fcntl(fd, F_GETFD) >= 0;
}

BOOST_AUTO_TEST_SUITE(unique_fd)

BOOST_AUTO_TEST_CASE(the_end_of_the_scope_closes) {
    int number = -1;
    {
        const UniqueFd fd = openNull();
        number = fd.get();
        BOOST_TEST(isOpen(number));
    }
    BOOST_TEST(!isOpen(number));
}

BOOST_AUTO_TEST_CASE(move_leaves_the_source_empty) {
    UniqueFd a = openNull();
    const int number = a.get();
    UniqueFd b(std::move(a));
    BOOST_TEST(!a.valid());  // NOLINT(bugprone-use-after-move): that is the claim
    BOOST_TEST(b.get() == number);
}

BOOST_AUTO_TEST_CASE(move_assignment_closes_what_was_held) {
    UniqueFd a = openNull();
    UniqueFd b = openNull();
    const int old = b.get();
    b = std::move(a);
    BOOST_TEST(!isOpen(old));
    UniqueFd& same = b;
    b = std::move(same);
    BOOST_TEST(isOpen(b.get()));
}

BOOST_AUTO_TEST_CASE(release_does_not_close) {
    UniqueFd a = openNull();
    const int number = a.release();
    BOOST_TEST(!a.valid());
    BOOST_TEST(isOpen(number));
    (void)::close(number);
}

BOOST_AUTO_TEST_CASE(reset_keeps_errno) {
    UniqueFd a(1 << 20);  // not open: close fails
    errno = ENOTEMPTY;
    a.reset();
    BOOST_TEST(errno == ENOTEMPTY);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(scope_exit)

BOOST_AUTO_TEST_CASE(runs_at_the_end_of_the_scope) {
    int runs = 0;
    {
        const ScopeExit guard([&] { ++runs; });
        BOOST_TEST(runs == 0);
    }
    BOOST_TEST(runs == 1);
}

BOOST_AUTO_TEST_CASE(a_released_one_does_not_run) {
    int runs = 0;
    {
        ScopeExit guard([&] { ++runs; });
        guard.release();
    }
    BOOST_TEST(runs == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
