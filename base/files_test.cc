#include "base/files.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/temp_dir.h"

namespace arca::base {
namespace {

mode_t modeOf(const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 ? st.st_mode : 0;
}

void makeFile(const TempDir& dir, const std::string& name, std::string_view data) {
    BOOST_TEST_REQUIRE(replaceFile(dir.fd(), name, data).has_value());
}

bool isCloseOnExec(int fd) {
    return (static_cast<unsigned>(::fcntl(fd, F_GETFD)) & static_cast<unsigned>(FD_CLOEXEC)) != 0;
}

BOOST_AUTO_TEST_SUITE(files)

BOOST_AUTO_TEST_CASE(open_adds_close_on_exec_and_names_the_path) {
    const auto fd = openAt(AT_FDCWD, "/dev/null", O_RDONLY);
    BOOST_TEST_REQUIRE(fd.has_value());
    BOOST_TEST(isCloseOnExec(fd->get()));
    const auto missing = openAt(AT_FDCWD, "/no/such", O_RDONLY);
    BOOST_TEST_REQUIRE(!missing.has_value());
    BOOST_TEST(missing.error().message() == "open /no/such: no such file or directory");
    BOOST_TEST((missing.error().code() == Code::kNotFound));
}

BOOST_AUTO_TEST_CASE(links_stay_inside_the_root) {
    const TempDir dir;
    makeFile(dir, "inside", "x");
    BOOST_TEST(::symlinkat("/inside", dir.fd(), "absolute") == 0);
    BOOST_TEST(::symlinkat("../../../../inside", dir.fd(), "climbing") == 0);
    BOOST_TEST(::symlinkat("/etc/passwd", dir.fd(), "outside") == 0);
    BOOST_TEST(openInRoot(dir.fd(), "/absolute", O_RDONLY).has_value());
    BOOST_TEST(openInRoot(dir.fd(), "climbing", O_RDONLY).has_value());
    BOOST_TEST(openInRoot(dir.fd(), "../../inside", O_RDONLY).has_value());
    const auto outside = openInRoot(dir.fd(), "outside", O_RDONLY);
    BOOST_TEST_REQUIRE(!outside.has_value());
    BOOST_TEST(outside.error().sysErrno() == ENOENT);
}

BOOST_AUTO_TEST_CASE(magic_links_are_refused_in_a_root) {
    const auto root = openAt(AT_FDCWD, "/", O_PATH | O_DIRECTORY);
    BOOST_TEST_REQUIRE(root.has_value());
    const auto link = openInRoot(root->get(), "/proc/self/fd/0", O_RDONLY);
    BOOST_TEST_REQUIRE(!link.has_value());
    BOOST_TEST(link.error().sysErrno() == ELOOP);
}

BOOST_AUTO_TEST_CASE(directories_are_made_through_links_inside_the_root) {
    const TempDir dir;
    BOOST_TEST(::mkdirat(dir.fd(), "real", 0755) == 0);
    BOOST_TEST(::symlinkat("/real", dir.fd(), "link") == 0);
    const auto made = makeDirsInRoot(dir.fd(), "/link/a/../b/c", 0750);
    BOOST_TEST_REQUIRE(made.has_value());
    BOOST_TEST(S_ISDIR(modeOf(dir.path() + "/real/b/c")));
    BOOST_TEST((modeOf(dir.path() + "/real/b/c") & 0777U) == 0750U);
    // Again: all there.
    BOOST_TEST(makeDirsInRoot(dir.fd(), "link/b/c", 0750).has_value());
    BOOST_TEST(makeDirsInRoot(dir.fd(), "/", 0750).has_value());
}

BOOST_AUTO_TEST_CASE(a_file_in_the_way_of_directories_is_an_error) {
    const TempDir dir;
    makeFile(dir, "file", "");
    const auto inside = makeDirsInRoot(dir.fd(), "file/sub", 0755);
    BOOST_TEST_REQUIRE(!inside.has_value());
    BOOST_TEST(inside.error().sysErrno() == ENOTDIR);
    BOOST_TEST(!makeDirs(dir.path() + "/file/sub", 0755).has_value());
    BOOST_TEST(!makeDirs(dir.path() + "/file", 0755).has_value());
    BOOST_TEST(makeDirs(dir.path() + "/a/b//c/", 0700).has_value());
    BOOST_TEST((modeOf(dir.path() + "/a/b/c") & 0777U) == 0700U);
}

BOOST_AUTO_TEST_CASE(reading_stops_at_the_limit) {
    const TempDir dir;
    makeFile(dir, "f", std::string(100, 'x'));
    BOOST_TEST(readFile(dir.path() + "/f", 100).value().size() == 100U);
    BOOST_TEST(readFile("f", 100, dir.fd()).value().size() == 100U);
    const auto over = readFile(dir.path() + "/f", 99);
    BOOST_TEST_REQUIRE(!over.has_value());
    BOOST_TEST((over.error().code() == Code::kInvalidArgument));
    BOOST_TEST(over.error().message() == dir.path() + "/f: larger than the limit of 99 bytes");
    // One that has no end.
    BOOST_TEST(!readFile("/dev/zero", 1000).has_value());
    BOOST_TEST(readFile("/dev/null").value().empty());
}

BOOST_AUTO_TEST_CASE(replacing_leaves_the_new_content_and_nothing_else) {
    const TempDir dir;
    makeFile(dir, "f", "old");
    makeFile(dir, ".f.new", "left over by a crash");
    BOOST_TEST(replaceFile(dir.fd(), "f", "new", 0640).has_value());
    BOOST_TEST(readFile(dir.path() + "/f").value() == "new");
    BOOST_TEST((modeOf(dir.path() + "/f") & 0777U) == 0640U);
    BOOST_TEST(listDir(dir.fd()).value().size() == 1U);
}

BOOST_AUTO_TEST_CASE(a_failed_replacement_keeps_the_old_content) {
    const TempDir dir;
    BOOST_TEST(::mkdirat(dir.fd(), "f", 0755) == 0);  // rename onto a directory fails
    BOOST_TEST(!replaceFile(dir.fd(), "f", "new").has_value());
    BOOST_TEST(listDir(dir.fd()).value() == std::vector<std::string>{"f"});
}

BOOST_AUTO_TEST_CASE(control_files_get_one_write) {
    const TempDir dir;
    makeFile(dir, "f", "");
    BOOST_TEST(writeControlFile(dir.fd(), "f", "1").has_value());
    BOOST_TEST(readFile("f", 10, dir.fd()).value() == "1");
    const auto full = writeControlFile(AT_FDCWD, "/dev/full", "a\nb");
    BOOST_TEST_REQUIRE(!full.has_value());
    BOOST_TEST(full.error().message() == "write \"a\\x0ab\" to /dev/full: no space left on device");
    BOOST_TEST(!writeControlFile(dir.fd(), "missing", "1").has_value());
    BOOST_TEST(listDir(dir.fd()).value().size() == 1U);
}

BOOST_AUTO_TEST_CASE(remove_takes_a_tree_but_not_what_links_point_to) {
    const TempDir dir;
    const TempDir other;
    makeFile(other, "keep", "x");
    BOOST_TEST(makeDirs(dir.path() + "/t/a/b", 0700).has_value());
    BOOST_TEST(::symlink(other.path().c_str(), (dir.path() + "/t/a/link").c_str()) == 0);
    BOOST_TEST(removeTree(dir.fd(), "t").has_value());
    BOOST_TEST(listDir(dir.fd()).value().empty());
    BOOST_TEST(listDir(other.fd()).value().size() == 1U);
    // A link itself.
    BOOST_TEST(::symlinkat(other.path().c_str(), dir.fd(), "link") == 0);
    BOOST_TEST(removeTree(dir.fd(), "link").has_value());
    BOOST_TEST(listDir(other.fd()).value().size() == 1U);
    // Nothing is there: success.
    BOOST_TEST(removeTree(dir.fd(), "t").has_value());
    BOOST_TEST(removeTree(AT_FDCWD, dir.path() + "/no/such").has_value());
}

BOOST_AUTO_TEST_CASE(remove_does_not_enter_a_mount) {
    const TempDir dir;
    const std::string point = dir.path() + "/m";
    BOOST_TEST(::mkdirat(dir.fd(), "m", 0700) == 0);
    if (::mount("test", point.c_str(), "tmpfs", 0, nullptr) != 0) {
        BOOST_TEST_MESSAGE("skipped: needs the right to mount");
        return;
    }
    BOOST_TEST(::mkdir((point + "/keep").c_str(), 0700) == 0);
    const auto by_name = removeTree(dir.fd(), "m");
    BOOST_TEST(!by_name.has_value());
    const auto from_above = removeTree(AT_FDCWD, dir.path());
    BOOST_TEST(!from_above.has_value());
    BOOST_TEST(S_ISDIR(modeOf(point + "/keep")));
    BOOST_TEST(::umount(point.c_str()) == 0);
}

BOOST_AUTO_TEST_CASE(lists_are_sorted_and_without_dots) {
    const TempDir dir;
    for (const char* name : {"b", "a", ".c"}) makeFile(dir, name, "");
    BOOST_TEST(listDir(dir.fd()).value() == (std::vector<std::string>{".c", "a", "b"}));
    BOOST_TEST(!listDir(dir.fd(), "a").has_value());
}

BOOST_AUTO_TEST_CASE(close_on_exec_from_marks_only_the_rest) {
    const UniqueFd low(::open("/dev/null", O_RDONLY));
    const UniqueFd high(::fcntl(low.get(), F_DUPFD, 200));
    BOOST_TEST(closeOnExecFrom(200).has_value());
    BOOST_TEST(!isCloseOnExec(low.get()));
    BOOST_TEST(isCloseOnExec(high.get()));
}

BOOST_AUTO_TEST_CASE(no_descriptor_is_left) {
    const size_t before = openFdCount();
    {
        const TempDir dir;
        makeFile(dir, "f", "x");
        (void)makeDirsInRoot(dir.fd(), "a/b", 0700);
        (void)makeDirsInRoot(dir.fd(), "f/b", 0700);
        (void)readFile(dir.path() + "/f", 0);
        (void)listDir(dir.fd(), "f");
        (void)removeTree(dir.fd(), "a");
    }
    BOOST_TEST(openFdCount() == before);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
