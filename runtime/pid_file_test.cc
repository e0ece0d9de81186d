#include "runtime/pid_file.h"

#include <sys/stat.h>

#include <boost/test/unit_test.hpp>

#include "runtime/scratch_dir_test.h"

namespace arca::runtime {
namespace {

BOOST_AUTO_TEST_SUITE(pid_file)

BOOST_AUTO_TEST_CASE(holds_the_number_and_nothing_else) {
    const ScratchDir scratch;
    const std::string path = scratch.file("pid");
    const mode_t before = ::umask(022);
    BOOST_TEST(writePidFile(path, 4242).has_value());
    (void)::umask(before);
    BOOST_TEST(textOf(path) == "4242");
    struct stat st {};
    BOOST_TEST(::stat(path.c_str(), &st) == 0);
    BOOST_TEST((st.st_mode & 0777U) == 0644U);
    BOOST_TEST(base::listDir(AT_FDCWD, scratch.path())->size() == 1U);
}

BOOST_AUTO_TEST_CASE(replaces_an_old_file_and_the_remains_of_a_dead_call) {
    const ScratchDir scratch;
    writeText(scratch.file("pid"), "123456789\n");
    writeText(scratch.file(".pid"), "half");
    BOOST_TEST(writePidFile(scratch.file("pid"), 7).has_value());
    BOOST_TEST(textOf(scratch.file("pid")) == "7");
    BOOST_TEST(base::listDir(AT_FDCWD, scratch.path())->size() == 1U);
}

BOOST_AUTO_TEST_CASE(an_error_names_the_file_and_leaves_nothing) {
    const ScratchDir scratch;
    const auto missing = writePidFile(scratch.file("no/pid"), 7);
    BOOST_TEST_REQUIRE(!missing.has_value());
    BOOST_TEST(missing.error().message().find("no such file or directory") != std::string::npos);
    BOOST_TEST(::mkdir(scratch.file("pid").c_str(), 0700) == 0);
    BOOST_TEST(!writePidFile(scratch.file("pid"), 7).has_value());
    BOOST_TEST(base::listDir(AT_FDCWD, scratch.path())->size() == 1U);
}

BOOST_AUTO_TEST_CASE(none_is_wanted) {
    BOOST_TEST(writePidFile("", 7).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
