#include "vminitd/oci_alterations.h"

#include <sys/stat.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>

#include "vminitd/test_folder.h"

namespace arca::vminitd {
namespace {

struct Fixture : TestFolder {
    Fixture() {
        (void)::mkdirat(fd(), "etc", 0755);
        write("etc/passwd", "app:x:1000:1001::/srv/app:/bin/sh\n");
        write("etc/group", "staff:x:20:app\nvideo:x:44:\n");
        spec.root.emplace();
        spec.root->path = path();
        spec.process.emplace();
        context.process_id = "c1";
        context.cgroup_prefix = "/container";
    }
    base::Result<> apply() { return applyOciAlterations(spec, context); }
    int count(const std::string& entry) {
        const auto& env = spec.process->env;
        return static_cast<int>(std::count(env.begin(), env.end(), entry));
    }
    spec::Spec spec;
    AlterationContext context;
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(oci_alterations, Fixture)

BOOST_AUTO_TEST_CASE(missing_parts_are_errors) {
    spec.process.reset();
    BOOST_TEST((apply().error().code() == base::Code::kInvalidArgument));
    context.process_may_be_missing = true;
    BOOST_TEST(apply().has_value());
    spec.root.reset();
    BOOST_TEST((apply().error().code() == base::Code::kInvalidArgument));
}

BOOST_AUTO_TEST_CASE(defaults_are_filled_in) {
    BOOST_TEST_REQUIRE(apply().has_value());
    BOOST_TEST(spec.linux.cgroupsPath == "/container/c1");
    BOOST_TEST(spec.process->cwd == "/");
    BOOST_TEST(count("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") == 1);
    BOOST_TEST(count("HOME=/") == 1);
    BOOST_TEST(count("TERM=xterm") == 0);
}

BOOST_AUTO_TEST_CASE(what_is_there_stays) {
    spec.process->env = {"PATH=/x", "HOME=/h", "TERM=vt100"};
    spec.process->terminal = true;
    spec.process->cwd = "/w";
    spec.linux.cgroupsPath = "a/b";
    BOOST_TEST_REQUIRE(apply().has_value());
    const std::vector<std::string> expected = {"PATH=/x", "HOME=/h", "TERM=vt100"};
    BOOST_TEST(spec.process->env == expected, boost::test_tools::per_element());
    BOOST_TEST(spec.process->cwd == "/w");
    BOOST_TEST(spec.linux.cgroupsPath == "/a/b");
}

BOOST_AUTO_TEST_CASE(terminal_gets_term) {
    spec.process->terminal = true;
    BOOST_TEST_REQUIRE(apply().has_value());
    BOOST_TEST(count("TERM=xterm") == 1);
}

// apple/containerization#103
BOOST_AUTO_TEST_CASE(home_is_that_of_the_numeric_user_and_an_empty_one_counts_as_unset) {
    spec.process->user.uid = 1000;
    spec.process->env = {"HOME="};
    BOOST_TEST_REQUIRE(apply().has_value());
    BOOST_TEST(count("HOME=/srv/app") == 1);
    BOOST_TEST(count("HOME=") == 0);
}

// containers/crun#644
BOOST_AUTO_TEST_CASE(a_bundles_groups_are_exactly_those_given) {
    spec.process->user = {1000, 1001, std::nullopt, {2000, 3000}, ""};
    BOOST_TEST_REQUIRE(apply().has_value());
    const std::vector<uint32_t> expected = {2000, 3000};
    BOOST_TEST(spec.process->user.additionalGids == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_user_name_brings_its_groups) {
    spec.process->user.username = "app";
    spec.process->user.additionalGids = {20, 5};
    BOOST_TEST_REQUIRE(apply().has_value());
    BOOST_TEST(spec.process->user.uid == 1000U);
    BOOST_TEST(spec.process->user.gid == 1001U);
    const std::vector<uint32_t> expected = {20, 5, 1001};
    BOOST_TEST(spec.process->user.additionalGids == expected, boost::test_tools::per_element());
    BOOST_TEST(count("HOME=/srv/app") == 1);
}

BOOST_AUTO_TEST_CASE(relative_roots_belong_to_the_bundle) {
    spec.root->path = "rootfs";
    BOOST_TEST(!apply().has_value());
    (void)::mkdirat(fd(), "rootfs", 0755);
    context.bundle = path();
    BOOST_TEST_REQUIRE(apply().has_value());
    BOOST_TEST(spec.root->path == path() + "/rootfs");
}

BOOST_AUTO_TEST_CASE(a_passwd_that_is_mounted_over_the_image_counts) {
    TestFolder host;
    host.write("passwd", "app:x:1000:1001::/mounted:/bin/sh\n");
    spec::Mount mount;
    mount.destination = "/etc/passwd";
    mount.source = host.path() + "/passwd";
    spec.mounts.push_back(mount);
    spec.process->user.uid = 1000;
    BOOST_TEST_REQUIRE(apply().has_value());
    BOOST_TEST(count("HOME=/mounted") == 1);
}

BOOST_AUTO_TEST_CASE(arca_group_add) {
    spec.process->env = {"ARCA_GROUP_ADD=staff,55,nosuch"};
    context.arca_group_add = true;
    BOOST_TEST_REQUIRE(apply().has_value());
    const std::vector<uint32_t> expected = {20, 55};
    BOOST_TEST(spec.process->user.additionalGids == expected, boost::test_tools::per_element());
    BOOST_TEST(count("ARCA_GROUP_ADD=staff,55,nosuch") == 0);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
