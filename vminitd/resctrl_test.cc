// Classes of service against a resctrl file system in memory.
#include "vminitd/resctrl.h"

#include <boost/test/unit_test.hpp>
#include <cerrno>

#include "vminitd/fake_cgroup_fs.h"
#include "vminitd/mount_table.h"

namespace arca::vminitd {
namespace {

using base::Code;
using base::Result;
using Texts = std::vector<std::string>;

constexpr char kRoot[] = "/res";

// The kernel's own folders go with a group.
struct FakeResctrlFs : FakeCgroupFs {
    std::string held;
    Result<bool> removeDir(const std::string& path) override {
        if (path == held) return false;
        (void)FakeCgroupFs::removeDir(path + "/mon_groups");
        return FakeCgroupFs::removeDir(path);
    }
};

// As the kernel makes it: each group has its files, and comes with all of the cache.
struct ResctrlFixture {
    ResctrlFixture() {
        fs.populate = [](FakeCgroupFs& self, const std::string& path) {
            self.files[path + "/tasks"] = "";
            if (path.find("/mon_groups/") != std::string::npos) return;
            self.files[path + "/schemata"] = "    MB:0=100;1=100\n    L3:0=7ff;1=7ff";
            self.dirs.insert(path + "/mon_groups");
        };
        fs.dirs = {kRoot, "/res/info", "/res/mon_groups", "/res/given", "/res/given/mon_groups"};
        fs.files = {
            {"/res/tasks", "1"},
            {"/res/schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff"},
            {"/res/given/tasks", "7"},
            {"/res/given/schemata", "    MB:0= 20;1=100\n    L3:0=00f;1=7ff"},
            {"/res/info/last_cmd_status", "ok"},
            {"/res/info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes"}};
    }
    Result<ResctrlGroup> make(const spec::IntelRdt& rdt) {
        ARCA_TRY(ResctrlGroup group, resctrl.locate(rdt, "c1"));
        ARCA_CHECK(resctrl.create(group, rdt));
        return group;
    }
    FakeResctrlFs fs;
    Resctrl resctrl{fs, kRoot};
};

spec::IntelRdt named(const char* id) {
    spec::IntelRdt rdt;
    rdt.closID = id;
    return rdt;
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(resctrl, ResctrlFixture)

BOOST_AUTO_TEST_CASE(a_container_gets_a_class_of_its_own_that_goes_with_it) {
    spec::IntelRdt rdt;
    rdt.l3CacheSchema = "L3:0=f;1=ff";
    rdt.memBwSchema = "MB:0=20";
    rdt.schemata = {"L2:0=3", "SMBA:0=10"};
    const auto group = make(rdt);
    BOOST_TEST_REQUIRE(group.has_value());
    BOOST_TEST(group->path == "/res/c1");
    // In this order, a line each.
    BOOST_TEST((fs.written("/res/c1/schemata") ==
                Texts{"L3:0=f;1=ff\n", "MB:0=20\n", "L2:0=3\n", "SMBA:0=10\n"}));
    BOOST_TEST(resctrl.addProcess(*group, 42).has_value());
    BOOST_TEST((fs.written("/res/c1/tasks") == Texts{"42"}));
    BOOST_TEST(resctrl.remove(*group, false).has_value());
    BOOST_TEST(!fs.dirs.contains("/res/c1"));
    BOOST_TEST(fs.files.at("/res/tasks") == "1");
}

BOOST_AUTO_TEST_CASE(without_a_schema_nothing_is_written) {
    const auto group = make(spec::IntelRdt());
    BOOST_TEST_REQUIRE(group.has_value());
    BOOST_TEST(group->path == "/res/c1");
    BOOST_TEST(fs.writes.empty());
}

BOOST_AUTO_TEST_CASE(a_bandwidth_among_the_caches_gives_way) {
    spec::IntelRdt rdt;
    rdt.l3CacheSchema = "L3:0=f\nMB:0=50\n\nL3:1=f";
    rdt.memBwSchema = "MB:0=20";
    BOOST_TEST_REQUIRE(make(rdt).has_value());
    BOOST_TEST((fs.written("/res/c1/schemata") == Texts{"L3:0=f\n", "L3:1=f\n", "MB:0=20\n"}));
}

BOOST_AUTO_TEST_CASE(a_class_that_is_there_is_used_and_stays) {
    auto group = make(named("given"));
    BOOST_TEST_REQUIRE(group.has_value());
    BOOST_TEST(group->path == "/res/given");
    BOOST_TEST(fs.writes.empty());
    BOOST_TEST(resctrl.remove(*group, true).has_value());
    BOOST_TEST(fs.dirs.contains("/res/given"));
    group = make(named("/"));
    BOOST_TEST_REQUIRE(group.has_value());
    BOOST_TEST(resctrl.addProcess(*group, 42).has_value());
    BOOST_TEST((fs.written("/res/tasks") == Texts{"42"}));
    BOOST_TEST(resctrl.remove(*group, false).has_value());
    BOOST_TEST(fs.dirs.contains(kRoot));
}

BOOST_AUTO_TEST_CASE(a_class_that_is_there_must_have_the_schema) {
    spec::IntelRdt rdt = named("given");
    for (const char* same : {"L3:0=f", "L3:0=0xF;1=7ff", "L3: 1=7FF ; 0=00f"}) {
        rdt.l3CacheSchema = same;
        BOOST_TEST(make(rdt).has_value(), same);
    }
    rdt.memBwSchema = "MB:0=20";
    BOOST_TEST(make(rdt).has_value());
    for (const char* other : {"L3:0=ff", "L3:2=f", "L2:0=f", "nonsense", "L3:0=xyz"}) {
        rdt.l3CacheSchema = other;
        const auto group = make(rdt);
        BOOST_TEST_REQUIRE(!group.has_value(), other);
        BOOST_TEST((group.error().code() == Code::kInvalidArgument));
    }
    rdt = named("given");
    rdt.schemata = {"L3:0=f", "MB:0=21"};
    BOOST_TEST(make(rdt).error().message() ==
               "linux.intelRdt: /res/given is there and has not the schema \"MB:0=21\"");
    BOOST_TEST(fs.writes.empty());
}

BOOST_AUTO_TEST_CASE(a_named_class_is_made_where_a_schema_says_how_and_stays) {
    BOOST_TEST((make(named("new")).error().code() == Code::kNotFound));
    spec::IntelRdt rdt = named("new");
    rdt.schemata = {"L3:0=f"};
    const auto group = make(rdt);
    BOOST_TEST_REQUIRE(group.has_value());
    BOOST_TEST((fs.written("/res/new/schemata") == Texts{"L3:0=f\n"}));
    BOOST_TEST(resctrl.remove(*group, false).has_value());
    BOOST_TEST(fs.dirs.contains("/res/new"));
    // A create that failed takes it back, unless somebody has come into it meanwhile.
    fs.files["/res/new/tasks"] = "9";
    BOOST_TEST(resctrl.remove(*group, true).has_value());
    BOOST_TEST(fs.dirs.contains("/res/new"));
    fs.files["/res/new/tasks"] = "";
    BOOST_TEST(resctrl.remove(*group, true).has_value());
    BOOST_TEST(!fs.dirs.contains("/res/new"));
}

BOOST_AUTO_TEST_CASE(a_class_with_the_containers_id_is_not_taken_over) {
    fs.dirs.insert("/res/c1");
    const auto group = make(spec::IntelRdt());
    BOOST_TEST_REQUIRE(!group.has_value());
    BOOST_TEST((group.error().code() == Code::kAlreadyExists));
    // Nor one that appears between the two steps.
    fs.dirs.erase("/res/c1");
    const auto located = resctrl.locate(spec::IntelRdt(), "c1");
    fs.dirs.insert("/res/c1");
    BOOST_TEST(!resctrl.create(*located, spec::IntelRdt()).has_value());
    BOOST_TEST(fs.dirs.contains("/res/c1"));
}

BOOST_AUTO_TEST_CASE(a_schema_that_the_kernel_refuses_leaves_nothing) {
    fs.veto = [](const std::string& path, const std::string& value) {
        return path.ends_with("/schemata") && value == "L3:0=0\n" ? EINVAL : 0;
    };
    fs.files["/res/info/last_cmd_status"] = "CBM 0 is not valid";
    for (spec::IntelRdt rdt : {spec::IntelRdt(), named("new")}) {
        rdt.schemata = {"L3:0=0"};
        rdt.enableMonitoring = true;
        const auto group = make(rdt);
        BOOST_TEST_REQUIRE(!group.has_value());
        BOOST_TEST(group.error().sysErrno() == EINVAL);
        BOOST_TEST(group.error().message().find("schema \"L3:0=0\" (CBM 0 is not valid)") !=
                   std::string::npos);
        BOOST_TEST(!fs.dirs.contains("/res/c1"));
        BOOST_TEST(!fs.dirs.contains("/res/new"));
    }
}

BOOST_AUTO_TEST_CASE(a_monitoring_group_goes_with_the_container) {
    for (bool spec::IntelRdt::*member : {&spec::IntelRdt::enableMonitoring,
                                         &spec::IntelRdt::enableCMT, &spec::IntelRdt::enableMBM}) {
        spec::IntelRdt rdt = named("given");
        rdt.*member = true;
        const auto group = make(rdt);
        BOOST_TEST_REQUIRE(group.has_value());
        BOOST_TEST(group->monitor == "/res/given/mon_groups/c1");
        BOOST_TEST(fs.dirs.contains("/res/given/mon_groups/c1"));
        BOOST_TEST(resctrl.addProcess(*group, 42).has_value());
        BOOST_TEST(fs.files.at("/res/given/mon_groups/c1/tasks") == "42");
        BOOST_TEST(resctrl.remove(*group, false).has_value());
        BOOST_TEST(!fs.dirs.contains("/res/given/mon_groups/c1"));
        BOOST_TEST(fs.dirs.contains("/res/given"));
    }
    spec::IntelRdt rdt;
    rdt.enableMonitoring = true;
    const auto group = make(rdt);
    BOOST_TEST_REQUIRE(group.has_value());
    BOOST_TEST(group->monitor == "/res/c1/mon_groups/c1");
}

BOOST_AUTO_TEST_CASE(what_the_machine_does_not_monitor_is_an_error) {
    fs.files["/res/info/L3_MON/mon_features"] = "llc_occupancy";
    spec::IntelRdt rdt;
    rdt.enableMBM = true;
    BOOST_TEST(make(rdt).error().message() ==
               "linux.intelRdt.enableMBM: this machine does not monitor that");
    rdt = {};
    rdt.enableCMT = true;
    BOOST_TEST(make(rdt).has_value());
    fs.files.erase("/res/info/L3_MON/mon_features");
    rdt = named("given");
    rdt.enableMonitoring = true;
    BOOST_TEST((make(rdt).error().code() == Code::kUnsupported));
}

BOOST_AUTO_TEST_CASE(a_monitoring_group_that_is_there_is_not_taken_over) {
    fs.dirs.insert("/res/given/mon_groups/c1");
    spec::IntelRdt rdt = named("given");
    rdt.enableMonitoring = true;
    const auto group = make(rdt);
    BOOST_TEST_REQUIRE(!group.has_value());
    BOOST_TEST(group.error().message() ==
               "linux.intelRdt: /res/given/mon_groups/c1 is there already");
    BOOST_TEST(fs.dirs.contains("/res/given/mon_groups/c1"));
}

BOOST_AUTO_TEST_CASE(what_the_kernel_holds_is_an_error_that_can_be_tried_again) {
    const auto group = make(spec::IntelRdt());
    BOOST_TEST_REQUIRE(group.has_value());
    fs.held = "/res/c1";
    const auto removed = resctrl.remove(*group, false);
    BOOST_TEST_REQUIRE(!removed.has_value());
    BOOST_TEST(removed.error().message() == "linux.intelRdt: /res/c1 is still in use");
    fs.held.clear();
    BOOST_TEST(resctrl.remove(*group, false).has_value());
    BOOST_TEST(resctrl.remove(*group, false).has_value());  // gone is gone
    BOOST_TEST(!fs.dirs.contains("/res/c1"));
}

BOOST_AUTO_TEST_CASE(the_kernels_own_files_are_no_classes) {
    fs.files["/res/cpus"] = "3";
    for (const char* name : {"info", "mon_groups", "mon_data", "cpus"}) {
        BOOST_TEST((make(named(name)).error().code() == Code::kInvalidArgument), name);
    }
    BOOST_TEST(make(named("cpus")).error().message() ==
               "linux.intelRdt: /res/cpus is no class of service");
}

BOOST_AUTO_TEST_CASE(without_resctrl_it_is_an_error) {
    if (!mountPointOf("resctrl")->empty()) return;  // a machine that has it
    RealCgroupFs real;
    const auto group = Resctrl(real).locate(spec::IntelRdt(), "c1");
    BOOST_TEST_REQUIRE(!group.has_value());
    BOOST_TEST((group.error().code() == Code::kUnsupported));
    BOOST_TEST(group.error().message() == "linux.intelRdt: no resctrl file system is mounted");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
