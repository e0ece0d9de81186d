#include "base/guarded_program.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"

namespace {

using namespace arca::base;

BOOST_AUTO_TEST_SUITE(guarded_program)

BOOST_AUTO_TEST_CASE(it_can_be_executed_again_and_again_but_not_written) {
    auto file = openAt(AT_FDCWD, "/bin/false", O_PATH);
    BOOST_TEST_REQUIRE(file.has_value());
    const auto program = guardedProgram(*file, "/bin/false");
    BOOST_TEST_REQUIRE(program.has_value());
    for (int i = 0; i < 2; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            char name[] = "false";
            char* const argv[] = {name, nullptr};
            char* const envp[] = {nullptr};
            (void)::syscall(SYS_execveat, program->get(), "", argv, envp, AT_EMPTY_PATH);
            ::_exit(77);
        }
        int status = 0;
        BOOST_TEST(::waitpid(pid, &status, 0) == pid);
        BOOST_TEST(WEXITSTATUS(status) == 1);
    }
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC}) {
        const UniqueFd opened(::open(fdPath(program->get()).c_str(), flags | O_CLOEXEC));
        BOOST_TEST(!opened.valid());
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
