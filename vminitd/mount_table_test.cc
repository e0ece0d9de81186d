#include "vminitd/mount_table.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>
#include <cerrno>
#include <fstream>

#include "base/files.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

BOOST_AUTO_TEST_SUITE(mount_table)

BOOST_AUTO_TEST_CASE(mount_points_come_in_order_and_unescaped) {
    const auto points = parseMountPoints(
        "22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "23 22 0:22 / /a\\040b rw - tmpfs tmpfs rw\n"
        "24 22 0:22 / /back\\134slash rw - tmpfs tmpfs rw\n"
        "broken\n");
    const std::vector<std::string> expected{"/", "/a b", "/back\\slash"};
    BOOST_TEST(points == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_mount_point_is_found_by_the_type_behind_the_tags) {
    const char* const table =
        "22 1 0:21 / /resctrl rw,relatime shared:1 master:2 - ext4 resctrl rw\n"
        "23 22 0:22 / /a\\040b rw - resctrl none rw\n"
        "24 22 0:22 / /later rw shared:3 - resctrl none rw\n"
        "25 - resctrl\n"
        "26 22 0:22 / /cut rw -\n";
    BOOST_TEST(findMountPoint(table, "resctrl") == "/a b");
    BOOST_TEST(findMountPoint(table, "ext4") == "/resctrl");
    BOOST_TEST(findMountPoint(table, "xfs").empty());
}

// Runs `body` in a mount namespace of its own; gives its exit status, or -1 without the right to.
template <typename Body>
int inOwnMountNamespace(Body body) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
            ::_exit(77);
        }
        ::_exit(body());
    }
    int status = 0;
    (void)::waitpid(pid, &status, 0);
    return WEXITSTATUS(status) == 77 ? -1 : WEXITSTATUS(status);
}

BOOST_AUTO_TEST_CASE(all_below_a_path_is_unmounted_and_nothing_else) {
    const TestFolder folder;
    const std::string base = folder.path();
    const int status = inOwnMountNamespace([&] {
        for (const char* name : {"/a", "/ab"}) {
            if (::mkdir((base + name).c_str(), 0755) != 0) return 1;
            if (::mount("tmpfs", (base + name).c_str(), "tmpfs", 0, nullptr) != 0) return 2;
        }
        if (::mkdir((base + "/a/in ner").c_str(), 0755) != 0) return 3;
        // Twice at one place, and one of them of the same file system.
        for (int i = 0; i < 2; ++i) {
            if (::mount((base + "/ab").c_str(), (base + "/a/in ner").c_str(), nullptr, MS_BIND,
                        nullptr) != 0) {
                return 4;
            }
        }
        if (!unmountAllBelow(base + "/a")) return 5;
        const auto points = mountPoints();
        if (!points) return 6;
        int left = 0;
        for (const std::string& point : *points) {
            if (point == base + "/ab") ++left;
            if (point == base + "/a" || point.rfind(base + "/a/", 0) == 0) return 7;
        }
        return left == 1 ? 0 : 8;
    });
    if (status < 0) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_mount_in_use_is_an_error_and_stays) {
    const TestFolder folder;
    const std::string base = folder.path();
    const int status = inOwnMountNamespace([&] {
        if (::mount("tmpfs", base.c_str(), "tmpfs", 0, nullptr) != 0) return 1;
        const std::ofstream held(base + "/file");
        const auto unmounted = unmountAllBelow(base);
        if (unmounted) return 2;
        if (unmounted.error().sysErrno() != EBUSY) return 3;
        return ::access((base + "/file").c_str(), F_OK) == 0 ? 0 : 4;
    });
    if (status < 0) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(status == 0);
}

// What a container's folder is removed with: not even a bind mount of the same file system, whose
// device number tells nothing, is entered.
BOOST_AUTO_TEST_CASE(a_tree_with_a_mount_in_it_is_not_removed_through_the_mount) {
    const TestFolder folder;
    const std::string base = folder.path();
    const int status = inOwnMountNamespace([&] {
        for (const char* name : {"/kept", "/tree", "/tree/inner"}) {
            if (::mkdir((base + name).c_str(), 0755) != 0) return 1;
        }
        folder.write("kept/file", "x");
        if (::mount((base + "/kept").c_str(), (base + "/tree/inner").c_str(), nullptr, MS_BIND,
                    nullptr) != 0) {
            return 2;
        }
        const auto removed = arca::base::removeTree(folder.fd(), "tree");
        if (removed || removed.error().sysErrno() != EBUSY) return 3;
        if (::access((base + "/kept/file").c_str(), F_OK) != 0) return 4;
        if (!unmountAllBelow(base + "/tree")) return 5;
        return arca::base::removeTree(folder.fd(), "tree") ? 0 : 6;
    });
    if (status < 0) {
        BOOST_TEST_MESSAGE("skipped: needs root");
        return;
    }
    BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::vminitd
