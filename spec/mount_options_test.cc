#include "spec/mount_options.h"

#include <boost/test/unit_test.hpp>

#include "spec/features.h"

namespace {

using arca::base::Depth;
using arca::spec::IdmapOption;
using arca::spec::isKnownMountOption;
using arca::spec::MountOptions;
using arca::spec::parseMountOptions;
using arca::spec::parsePropagation;
using arca::spec::PropagationChange;

MountOptions parsed(const std::vector<std::string>& options, const char* type = "tmpfs") {
    return parseMountOptions(type, options).value();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(mount_options)

BOOST_AUTO_TEST_CASE(every_option_that_features_lists_is_known) {
    for (const std::string& name : arca::spec::mountOptionNames())
        BOOST_TEST(isKnownMountOption(name), name);
}

BOOST_AUTO_TEST_CASE(only_what_is_named_is_set_or_cleared) {
    const MountOptions options = parsed({"nosuid", "exec", "ro"});
    BOOST_TEST(options.top.set == uint64_t{MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY});
    BOOST_TEST(options.top.clear == uint64_t{MOUNT_ATTR_NOEXEC});
    BOOST_TEST(options.superblock_flags == static_cast<unsigned long>(MS_RDONLY));
    BOOST_TEST(options.tree.empty());
    BOOST_TEST(options.data.empty());
}

BOOST_AUTO_TEST_CASE(the_later_option_wins) {
    const MountOptions options = parsed({"ro", "rw", "nodev", "dev", "sync", "async"});
    BOOST_TEST(options.top.set == 0U);
    BOOST_TEST(options.top.clear == uint64_t{MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV});
    BOOST_TEST(options.superblock_flags == 0U);
}

BOOST_AUTO_TEST_CASE(access_time_options_exclude_each_other) {
    const MountOptions options = parsed({"noatime", "strictatime", "nodiratime"});
    BOOST_TEST(options.top.set == uint64_t{MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NODIRATIME});
    BOOST_TEST(options.top.clear == uint64_t{MOUNT_ATTR__ATIME});
    BOOST_TEST(parsed({"noatime", "relatime"}).top.set == 0U);
    BOOST_TEST(parsed({"noatime", "atime"}).top.set == 0U);
}

BOOST_AUTO_TEST_CASE(recursive_options_are_for_the_tree) {
    const MountOptions options = parsed({"rro", "rnoexec", "rsuid", "rnoatime", "ro"});
    BOOST_TEST(options.tree.set ==
               uint64_t{MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME});
    BOOST_TEST(options.tree.clear == uint64_t{MOUNT_ATTR_NOSUID | MOUNT_ATTR__ATIME});
    BOOST_TEST(options.top.set == uint64_t{MOUNT_ATTR_RDONLY});
}

BOOST_AUTO_TEST_CASE(propagation_keeps_its_order) {
    const std::vector<PropagationChange> expected = {{MS_SLAVE, Depth::kTree},
                                                     {MS_SHARED, Depth::kTop}};
    BOOST_TEST((parsed({"rslave", "shared"}).propagation == expected));
    BOOST_TEST((parsePropagation("runbindable").value() ==
                PropagationChange{MS_UNBINDABLE, Depth::kTree}));
    BOOST_TEST(parsePropagation("").value().type == 0U);
    BOOST_TEST(!parsePropagation("ro"));
    BOOST_TEST(!parsePropagation("Shared"));
}

BOOST_AUTO_TEST_CASE(bind_is_an_option_or_a_type) {
    BOOST_TEST(!parsed({"ro"}).bind);
    BOOST_TEST(parsed({"bind"}).bind);
    BOOST_TEST((parsed({"rbind"}).bind_depth == Depth::kTree));
    BOOST_TEST(parsed({}, "bind").bind);
    BOOST_TEST((parsed({}, "bind").bind_depth == Depth::kTop));
    BOOST_TEST((parsed({"ridmap"}).idmap == IdmapOption::kTree));
    BOOST_TEST(parsed({"tmpcopyup"}).tmpcopyup);
}

BOOST_AUTO_TEST_CASE(what_is_not_known_goes_to_the_file_system) {
    const std::vector<std::string> expected = {"mode=0755", "size=64k", "RO", "context=\"a,b\""};
    const MountOptions options =
        parsed({"mode=0755", "nosuid", "size=64k", "RO", "", "defaults", "context=\"a,b\""});
    BOOST_TEST(options.data == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(nul_bytes_are_refused) {
    BOOST_TEST(!parseMountOptions("tmpfs", {std::string("a\0b", 3)}));
}

BOOST_AUTO_TEST_SUITE_END()
