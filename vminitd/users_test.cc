#include "vminitd/users.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/sh\n"
    "# a comment\n"
    "\n"
    "broken line\n"
    "bad:x:notanumber:0::/:/bin/sh\n"
    "app:x:1000:1001::/srv/app:/bin/sh\n"
    "j\xc3\xbcrgen:x:1002:1002:\xff\xfe:/home/j:/bin/sh\n"
    "nohome:x:1003:1003:::/bin/sh\n"
    "4242:x:77:78::/numeric:/bin/sh";

constexpr char kGroup[] =
    "root:x:0:\n"
    "short:x\n"
    "staff:x:20:app,other\n"
    "wheel:x:10:root,app\n"
    "empty:x:30:,";

struct Rootfs : TestFolder {
    Rootfs() {
        (void)::mkdirat(fd(), "etc", 0755);
        write("etc/passwd", kPasswd);
        write("etc/group", kGroup);
    }
    base::Result<ResolvedUser> resolve(const char* user, uint32_t default_gid = 0) {
        UserFiles files(fd(), "", "");
        return resolveUser(user, default_gid, files);
    }
    std::string home(uint32_t uid) {
        UserFiles files(fd(), "", "");
        return homeOf(uid, files);
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(users)

BOOST_AUTO_TEST_CASE(forms) {
    Rootfs rootfs;
    const struct {
        const char* form;
        uint32_t uid;
        uint32_t gid;
        std::vector<uint32_t> supplementary;
    } cases[] = {
        {"app", 1000, 1001, {20, 10}},
        {"1000", 1000, 1001, {20, 10}},
        {"root", 0, 0, {10}},
        {"app:staff", 1000, 20, {}},
        {"app:99", 1000, 99, {}},
        {"5:6", 5, 6, {}},
        {"502:staff", 502, 20, {}},
        {"4242", 4242, 7, {}},  // a number is never a name
        {"j\xc3\xbcrgen", 1002, 1002, {}},
        {"4294967294:4294967294", 4294967294U, 4294967294U, {}},
    };
    for (const auto& c : cases) {
        BOOST_TEST_CONTEXT(c.form) {
            const auto user = rootfs.resolve(c.form, 7);
            BOOST_TEST_REQUIRE(user.has_value());
            BOOST_TEST(user->uid == c.uid);
            BOOST_TEST(user->gid == c.gid);
            BOOST_TEST(user->supplementary == c.supplementary, boost::test_tools::per_element());
        }
    }
}

BOOST_AUTO_TEST_CASE(wrong_forms_are_errors) {
    Rootfs rootfs;
    for (const char* form :
         {"1000:", ":5", ":", "-1", "4294967295", "4294967296", "5:-1", "5:99999999999999999999"}) {
        BOOST_TEST_CONTEXT(form) {
            const auto user = rootfs.resolve(form);
            BOOST_TEST_REQUIRE(!user.has_value());
            BOOST_TEST((user.error().code() == base::Code::kInvalidArgument));
        }
    }
}

BOOST_AUTO_TEST_CASE(a_missing_name_names_the_file) {
    Rootfs rootfs;
    const auto user = rootfs.resolve("ghost");
    BOOST_TEST_REQUIRE(!user.has_value());
    BOOST_TEST(user.error().message().find("\"ghost\"") != std::string::npos);
    BOOST_TEST(user.error().message().find("/etc/passwd") != std::string::npos);
    const auto group = rootfs.resolve("1000:ghosts");
    BOOST_TEST_REQUIRE(!group.has_value());
    BOOST_TEST(group.error().message().find("/etc/group") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(numbers_need_no_files) {
    TestFolder empty;
    UserFiles files(empty.fd(), "", "");
    const auto user = resolveUser("1000", 3, files);
    BOOST_TEST_REQUIRE(user.has_value());
    BOOST_TEST(user->gid == 3U);
    BOOST_TEST(homeOf(1000, files) == "/");
}

BOOST_AUTO_TEST_CASE(homes) {
    Rootfs rootfs;
    BOOST_TEST(rootfs.home(1000) == "/srv/app");
    BOOST_TEST(rootfs.home(1003) == "/");
    BOOST_TEST(rootfs.home(31337) == "/");
}

BOOST_AUTO_TEST_CASE(a_symlink_cannot_leave_the_rootfs) {
    Rootfs rootfs;
    TestFolder outside;
    outside.write("passwd", "ghost:x:1:1::/:/bin/sh\n");
    (void)::unlinkat(rootfs.fd(), "etc/passwd", 0);
    BOOST_TEST_REQUIRE(
        ::symlinkat((outside.path() + "/passwd").c_str(), rootfs.fd(), "etc/passwd") == 0);
    BOOST_TEST(!rootfs.resolve("ghost").has_value());
    BOOST_TEST(rootfs.home(1) == "/");
}

BOOST_AUTO_TEST_CASE(a_fifo_is_refused_without_waiting) {
    Rootfs rootfs;
    (void)::unlinkat(rootfs.fd(), "etc/passwd", 0);
    BOOST_TEST_REQUIRE(::mkfifoat(rootfs.fd(), "etc/passwd", 0644) == 0);
    BOOST_TEST(!rootfs.resolve("app").has_value());
    BOOST_TEST(rootfs.resolve("7:8").has_value());
    BOOST_TEST(rootfs.home(1) == "/");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
