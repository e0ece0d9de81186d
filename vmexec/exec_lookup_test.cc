#include "vmexec/exec_lookup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cstdlib>

#include "base/files.h"
#include "base/unique_fd.h"

namespace {

using arca::base::Code;
using arca::vmexec::envValue;
using arca::vmexec::findProgram;

// A folder with: prog (executable), data (not), sub/ (a directory), sub/prog.
struct Tree {
    std::string path = "/tmp/exec-lookup-XXXXXX";
    Tree() {
        BOOST_TEST_REQUIRE(::mkdtemp(path.data()) != nullptr);
        BOOST_TEST_REQUIRE(::mkdir((path + "/sub").c_str(), 0755) == 0);
        make("/prog", 0755);
        make("/data", 0644);
        make("/sub/prog", 0755);
    }
    Tree(const Tree&) = delete;
    Tree& operator=(const Tree&) = delete;
    ~Tree() { (void)arca::base::removeTree(AT_FDCWD, path); }
    void make(const std::string& name, mode_t mode) const {
        const arca::base::UniqueFd fd(
            ::open((path + name).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, mode));
        BOOST_TEST_REQUIRE(fd.valid());
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(exec_lookup)

BOOST_AUTO_TEST_CASE(the_last_entry_of_a_variable_counts) {
    BOOST_TEST(envValue({"PATH=/a", "PATHS=/b", "PATH=/c", "XPATH=/d"}, "PATH") == "/c");
    BOOST_TEST(envValue({"PATH"}, "PATH").empty());
    BOOST_TEST(envValue({}, "PATH").empty());
}

BOOST_AUTO_TEST_CASE(name_is_found_in_the_first_directory_that_has_it) {
    const Tree tree;
    const std::string env = "PATH=/nonexistent:" + tree.path + "/sub:" + tree.path;
    BOOST_TEST(findProgram("prog", {env}).value() == tree.path + "/sub/prog");
}

BOOST_AUTO_TEST_CASE(directories_and_plain_files_are_passed_over_in_path) {
    const Tree tree;
    for (const char* name : {"sub", "data", "nosuch", ""}) {
        const auto found = findProgram(name, {"PATH=" + tree.path});
        BOOST_TEST_REQUIRE(!found);
        BOOST_TEST(found.error().message() ==
                   std::string("exec: \"") + name + "\": executable file not found in $PATH");
        BOOST_TEST((found.error().code() == Code::kNotFound));
    }
}

BOOST_AUTO_TEST_CASE(without_path_nothing_is_found) {
    BOOST_TEST(!findProgram("sh", {}));
    BOOST_TEST(!findProgram("sh", {"PATH="}));
}

BOOST_AUTO_TEST_CASE(name_with_slash_is_taken_as_it_is) {
    const Tree tree;
    const std::string path = tree.path + "/prog";
    BOOST_TEST(findProgram(path, {"PATH=/nonexistent"}).value() == path);
    const auto missing = findProgram("/nonexistent/x", {});
    BOOST_TEST(missing.error().message() ==
               "exec: \"/nonexistent/x\": stat /nonexistent/x: no such file or directory");
    const auto directory = findProgram(tree.path + "/sub", {});
    BOOST_TEST(directory.error().message() ==
               "exec: \"" + tree.path + "/sub\": is a directory: permission denied");
    const auto plain = findProgram(tree.path + "/data", {});
    BOOST_TEST(plain.error().message() == "exec: \"" + tree.path + "/data\": permission denied");
    const auto through_file = findProgram(path + "/x", {});
    BOOST_TEST(through_file.error().message().ends_with("not a directory"));
}

BOOST_AUTO_TEST_SUITE_END()
