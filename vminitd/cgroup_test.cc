#include "vminitd/cgroup.h"

#include <boost/test/unit_test.hpp>

#include "spec/cgroup_units.h"
#include "vminitd/cgroup_settings.h"
#include "vminitd/fake_cgroup_fs.h"
#include "vminitd/statistics.h"

namespace arca::vminitd {
namespace {

const char kHybridMountinfo[] =
    "30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "33 30 0:30 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
    "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "35 30 0:32 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n"
    "36 30 0:33 / /sys/fs/cgroup/freezer rw,relatime shared:5 - cgroup cgroup rw,freezer\n"
    "37 30 0:34 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio\n"
    "38 30 0:35 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
    "39 30 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup "
    "rw,xattr,release_agent=/x,name=systemd\n"
    "40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
    "41 30 0:38 / /mnt rw - ext4 /dev/vda rw\n";

const std::map<std::string, std::vector<std::pair<const char*, const char*>>> kV1Files = {
    {"cpu",
     {{"cpu.shares", "1024"},
      {"cpu.cfs_quota_us", "-1"},
      {"cpu.cfs_period_us", "100000"},
      {"cpu.cfs_burst_us", "0"},
      {"cpu.idle", "0"},
      {"cpu.rt_runtime_us", "0"},
      {"cpu.rt_period_us", "1000000"}}},
    {"cpuset", {{"cpuset.cpus", ""}, {"cpuset.mems", ""}}},
    {"memory",
     {{"memory.limit_in_bytes", "9223372036854771712"},
      {"memory.memsw.limit_in_bytes", "9223372036854771712"},
      {"memory.soft_limit_in_bytes", "9223372036854771712"},
      {"memory.swappiness", "60"},
      {"memory.oom_control", "oom_kill_disable 0\nunder_oom 0"}}},
    {"devices", {{"devices.allow", ""}, {"devices.deny", ""}}},
    {"freezer", {{"freezer.state", "THAWED"}}},
    {"blkio",
     {{"blkio.bfq.weight", "100"},
      {"blkio.throttle.read_bps_device", "8:0 5"},
      {"blkio.throttle.write_iops_device", ""}}},
    {"pids", {{"pids.max", "max"}}},
};

void populateV1(FakeCgroupFs& fs, const std::string& dir) {
    const std::string rest = dir.substr(std::string("/sys/fs/cgroup/").size());
    const std::string hierarchy = rest.substr(0, rest.find('/'));
    fs.files[dir + "/cgroup.procs"] = "";
    const auto found = kV1Files.find(hierarchy);
    if (found == kV1Files.end()) return;
    for (const auto& [file, value] : found->second) fs.files[dir + "/" + file] = value;
}

struct V1 {
    V1() {
        fs.populate = populateV1;
        fs.dirs.insert("/sys/fs/cgroup");
        for (const char* name : {"cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
                                 "systemd", "unified"}) {
            (void)fs.makeDir(std::string("/sys/fs/cgroup/") + name);
        }
        fs.files["/sys/fs/cgroup/cpuset/cpuset.cpus"] = "0-1";
        fs.files["/sys/fs/cgroup/cpuset/cpuset.mems"] = "0";
        manager = std::move(*makeCgroupManager(parseHierarchies(kHybridMountinfo), fs));
    }
    CgroupDirs make(const std::string& path) {
        auto dirs = manager->locate(path);
        BOOST_TEST_REQUIRE(dirs.has_value());
        BOOST_TEST_REQUIRE(manager->create(*dirs).has_value());
        return *dirs;
    }
    std::string file(const std::string& name) { return fs.files.at("/sys/fs/cgroup/" + name); }

    FakeCgroupFs fs;
    std::unique_ptr<CgroupManager> manager;
};

struct V2 {
    V2() {
        fs.populate = [](FakeCgroupFs& f, const std::string& dir) {
            for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
                     {"cgroup.procs", ""},
                     {"cgroup.controllers", "cpu io memory pids"},
                     {"cgroup.subtree_control", ""},
                     {"cgroup.kill", ""},
                     {"cgroup.freeze", "0"},
                     {"cgroup.events", "populated 0\nfrozen 0"},
                     {"memory.max", "max"},
                     {"memory.swap.max", "max"},
                     {"memory.low", "0"},
                     {"memory.current", "1000"},
                     {"memory.high", "max"},
                     {"cpu.max", "max 100000"},
                     {"cpu.max.burst", "0"},
                     {"cpu.weight", "100"},
                     {"cpu.idle", "0"},
                     {"io.weight", "default 100"},
                     {"io.max", ""},
                     {"pids.max", "max"}}) {
                f.files[dir + "/" + name] = value;
            }
        };
        fs.dirs.insert("/sys/fs");
        (void)fs.makeDir("/sys/fs/cgroup");
        manager = std::move(*makeCgroupManager({Hierarchy{"", "/sys/fs/cgroup", "/"}}, fs));
    }
    FakeCgroupFs fs;
    std::unique_ptr<CgroupManager> manager;
};

spec::Resources memory(std::optional<int64_t> limit, std::optional<int64_t> swap) {
    spec::Resources res;
    res.memory.emplace();
    res.memory->limit = limit;
    res.memory->swap = swap;
    return res;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cgroup_hierarchies)

BOOST_AUTO_TEST_CASE(mountinfo_names_each_hierarchy_once) {
    const auto found = parseHierarchies(kHybridMountinfo);
    BOOST_TEST_REQUIRE(found.size() == 9U);
    BOOST_TEST(found[0].controllers == "cpu,cpuacct");
    BOOST_TEST(found[7].controllers == "name=systemd");
    BOOST_TEST(found[8].controllers.empty());
    BOOST_TEST(found[8].mount_point == "/sys/fs/cgroup/unified");
}

BOOST_AUTO_TEST_CASE(hostile_paths_stay_inside) {
    BOOST_TEST(cleanCgroupPath("/../../x") == "/x");
    BOOST_TEST(cleanCgroupPath("a/../../..//b/./c") == "/b/c");
    BOOST_TEST(cleanCgroupPath("..") == "/");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(cgroup_v1)

BOOST_AUTO_TEST_CASE(create_makes_the_path_everywhere_and_fills_cpuset) {
    V1 host;
    const CgroupDirs dirs = host.make("/pod/c1");
    BOOST_TEST(dirs.size() == 9U);
    for (const CgroupDir& dir : dirs) BOOST_TEST(host.fs.dirs.contains(dir.path));
    BOOST_TEST(host.file("cpuset/pod/c1/cpuset.cpus") == "0-1");
    BOOST_TEST(host.file("cpuset/pod/cpuset.mems") == "0");
}

BOOST_AUTO_TEST_CASE(remove_takes_only_what_was_made) {
    V1 host;
    (void)host.fs.makeDir("/sys/fs/cgroup/memory/foreign");
    const CgroupDirs dirs = host.make("/foreign");
    (void)host.fs.makeDir("/sys/fs/cgroup/pids/foreign/nested");
    const auto removed = host.manager->remove(dirs);
    BOOST_TEST((removed && *removed));
    BOOST_TEST(host.fs.dirs.contains("/sys/fs/cgroup/memory/foreign"));
    BOOST_TEST(!host.fs.dirs.contains("/sys/fs/cgroup/pids/foreign"));
}

BOOST_AUTO_TEST_CASE(a_cgroup_with_processes_is_refused) {
    V1 host;
    host.make("/busy/nested");
    host.fs.files["/sys/fs/cgroup/memory/busy/nested/cgroup.procs"] = "12\n13";
    const auto dirs = host.manager->locate("/busy");
    BOOST_TEST_REQUIRE(!dirs.has_value());
    BOOST_TEST((dirs.error().code() == base::Code::kFailedPrecondition));
    BOOST_TEST(dirs.error().message().find("is not empty: 2 process(es)") != std::string::npos);
    // The root of the hierarchy is such a one.
    host.fs.files["/sys/fs/cgroup/pids/cgroup.procs"] = "1";
    BOOST_TEST(!host.manager->locate("/../..").has_value());
}

BOOST_AUTO_TEST_CASE(limits_are_written) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    spec::Resources res = memory(33554432, 33558528);
    res.memory->reservation = 1048576;
    res.memory->swappiness = 10;
    res.memory->disableOOMKiller = true;
    res.cpu.emplace();
    res.cpu->shares = 512;
    res.cpu->quota = 50000;
    res.cpu->period = 200000;
    res.cpu->cpus = "0";
    res.pidsLimit = 100;
    res.blockIO.emplace();
    res.blockIO->weight = 300;
    res.blockIO->throttleReadBpsDevice.push_back({8, 0, 1024});
    BOOST_TEST_REQUIRE(host.manager->apply(dirs, res).has_value());
    BOOST_TEST(host.file("memory/c/memory.limit_in_bytes") == "33554432");
    BOOST_TEST(host.file("memory/c/memory.memsw.limit_in_bytes") == "33558528");
    BOOST_TEST(host.file("memory/c/memory.soft_limit_in_bytes") == "1048576");
    BOOST_TEST(host.file("memory/c/memory.swappiness") == "10");
    BOOST_TEST(host.file("memory/c/memory.oom_control") == "1");
    BOOST_TEST(host.file("cpu/c/cpu.shares") == "512");
    BOOST_TEST(host.file("cpu/c/cpu.cfs_quota_us") == "50000");
    BOOST_TEST(host.file("cpu/c/cpu.cfs_period_us") == "200000");
    BOOST_TEST(host.file("cpuset/c/cpuset.cpus") == "0");
    BOOST_TEST(host.file("pids/c/pids.max") == "100");
    BOOST_TEST(host.file("blkio/c/blkio.bfq.weight") == "300");
    BOOST_TEST(host.file("blkio/c/blkio.throttle.read_bps_device") == "8:0 1024");
    BOOST_TEST(host.fs.written("/sys/fs/cgroup/devices/c/devices.deny").front() == "a");
    const auto allowed = host.fs.written("/sys/fs/cgroup/devices/c/devices.allow");
    BOOST_TEST((std::find(allowed.begin(), allowed.end(), "c 1:3 rwm") != allowed.end()));
}

BOOST_AUTO_TEST_CASE(zeroes_of_engines_mean_unset) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    spec::Resources res = memory(0, 0);
    res.memory->reservation = 0;
    res.memory->disableOOMKiller = false;
    res.cpu.emplace();
    res.cpu->shares = 0;
    res.cpu->quota = 0;
    res.cpu->period = 0;
    res.cpu->realtimePeriod = 0;
    res.cpu->realtimeRuntime = 0;
    res.pidsLimit = 0;
    res.blockIO.emplace();
    res.blockIO->weight = 0;
    res.network.emplace();
    res.network->classID = 0;
    BOOST_TEST(v1Settings(dirs, res, Purpose::kCreate, host.fs)->empty());
}

BOOST_AUTO_TEST_CASE(a_missing_controller_or_file_is_an_error_that_names_it) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    spec::Resources res;
    res.network.emplace();
    res.network->classID = 5;
    auto applied = host.manager->apply(dirs, res);
    BOOST_TEST_REQUIRE(!applied.has_value());
    BOOST_TEST((applied.error().code() == base::Code::kUnsupported));
    BOOST_TEST(applied.error().message().find("net_cls") != std::string::npos);
    res = {};
    res.blockIO.emplace();
    res.blockIO->leafWeight = 10;
    applied = host.manager->apply(dirs, res);
    BOOST_TEST_REQUIRE(!applied.has_value());
    BOOST_TEST(applied.error().message().find("leaf_weight") != std::string::npos);
    res = {};
    res.unified["memory.high"] = "1";
    BOOST_TEST(!host.manager->apply(dirs, res).has_value());
}

BOOST_AUTO_TEST_CASE(swap_below_limit_or_without_limit_is_refused_before_any_write) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    host.fs.writes.clear();
    for (const auto& res : {memory(2000, 1000), memory(std::nullopt, 1000), memory(-1, 1000)}) {
        const auto updated = host.manager->update(dirs, res);
        BOOST_TEST_REQUIRE(!updated.has_value());
        BOOST_TEST((updated.error().code() == base::Code::kInvalidArgument));
    }
    BOOST_TEST(host.fs.writes.empty());
}

BOOST_AUTO_TEST_CASE(limit_and_swap_rise_in_the_order_that_the_kernel_takes) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    BOOST_TEST_REQUIRE(host.manager->apply(dirs, memory(1000, 2000)).has_value());
    // As the kernel: the limit never exceeds the total.
    host.fs.veto = [&](const std::string& path, const std::string& value) {
        const std::string dir = "memory/c/";
        const bool limit = path.ends_with("memory.limit_in_bytes");
        const bool total = path.ends_with("memory.memsw.limit_in_bytes");
        if (limit && std::stoll(value) > std::stoll(host.file(dir + "memory.memsw.limit_in_bytes")))
            return EINVAL;
        if (total && std::stoll(value) < std::stoll(host.file(dir + "memory.limit_in_bytes")))
            return EINVAL;
        return 0;
    };
    BOOST_TEST(host.manager->update(dirs, memory(5000, 6000)).has_value());
    BOOST_TEST(host.file("memory/c/memory.limit_in_bytes") == "5000");
    BOOST_TEST(host.manager->update(dirs, memory(500, 600)).has_value());
    BOOST_TEST(host.file("memory/c/memory.memsw.limit_in_bytes") == "600");
}

BOOST_AUTO_TEST_CASE(a_refused_update_leaves_everything_as_it_was) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    spec::Resources res = memory(1000, 2000);
    res.memory->disableOOMKiller = true;
    res.blockIO.emplace();
    res.blockIO->throttleReadBpsDevice = {{8, 0, 77}, {8, 16, 88}};
    res.blockIO->throttleWriteIOPSDevice = {{8, 0, 1}};
    host.fs.write_errors["/sys/fs/cgroup/blkio/c/blkio.throttle.write_iops_device"] = EINVAL;
    BOOST_TEST(!host.manager->update(dirs, res).has_value());
    BOOST_TEST(host.file("memory/c/memory.limit_in_bytes") == "9223372036854771712");
    BOOST_TEST(host.file("memory/c/memory.memsw.limit_in_bytes") == "9223372036854771712");
    BOOST_TEST(host.file("memory/c/memory.oom_control") == "0");
    const auto throttle = host.fs.written("/sys/fs/cgroup/blkio/c/blkio.throttle.read_bps_device");
    const std::vector<std::string> expected = {"8:0 77", "8:16 88", "8:16 0", "8:0 5"};
    BOOST_TEST(throttle == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(kill_all_thaws_what_was_frozen) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    host.fs.files["/sys/fs/cgroup/freezer/c/cgroup.procs"] = "100\n101";
    host.fs.files["/sys/fs/cgroup/memory/c/cgroup.procs"] = "101\n102";
    BOOST_TEST(host.manager->setFrozen(dirs, true).has_value());
    BOOST_TEST(host.manager->killAll(dirs).has_value());
    const std::vector<std::pair<pid_t, int>> expected = {{100, 9}, {101, 9}, {102, 9}};
    BOOST_TEST((host.fs.signals == expected));
    BOOST_TEST(host.file("freezer/c/freezer.state") == "THAWED");
}

BOOST_AUTO_TEST_CASE(exec_follows_the_init_only_downwards) {
    V1 host;
    const CgroupDirs dirs = host.make("/c");
    host.fs.files["/proc/77/cgroup"] =
        "5:memory:/c/inner\n4:pids:/elsewhere\n1:name=systemd:/c/init.scope\n0::/c\n";
    const auto now = host.manager->currentOf(77, dirs);
    BOOST_TEST_REQUIRE(now.has_value());
    for (const CgroupDir& dir : *now) {
        if (dir.controllers == "memory") BOOST_TEST(dir.path == "/sys/fs/cgroup/memory/c/inner");
        if (dir.controllers == "pids") BOOST_TEST(dir.path == "/sys/fs/cgroup/pids/c");
        if (dir.controllers == "name=systemd") {
            BOOST_TEST(dir.path == "/sys/fs/cgroup/systemd/c/init.scope");
        }
    }
}

BOOST_AUTO_TEST_CASE(a_record_that_points_outside_is_not_removed) {
    V1 host;
    host.fs.dirs.insert("/home");
    host.fs.dirs.insert("/home/x");
    const auto removed = host.manager->remove({CgroupDir{"memory", "/home/x", true}});
    BOOST_TEST((removed && *removed));
    BOOST_TEST(host.fs.dirs.contains("/home/x"));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(cgroup_v2)

BOOST_AUTO_TEST_CASE(weight_from_shares) {
    BOOST_TEST(spec::cpuWeightFromShares(2) == 1U);
    BOOST_TEST(spec::cpuWeightFromShares(1024) == 100U);
    BOOST_TEST(spec::cpuWeightFromShares(262144) == 10000U);
}

BOOST_AUTO_TEST_CASE(controllers_are_enabled_down_to_the_parent) {
    V2 host;
    const auto dirs = host.manager->locate("/a/b");
    BOOST_TEST_REQUIRE(dirs.has_value());
    BOOST_TEST_REQUIRE(host.manager->create(*dirs).has_value());
    const std::string all = "+cpu +io +memory +pids";
    BOOST_TEST(host.fs.files["/sys/fs/cgroup/cgroup.subtree_control"] == all);
    BOOST_TEST(host.fs.files["/sys/fs/cgroup/a/cgroup.subtree_control"] == all);
    BOOST_TEST(host.fs.files["/sys/fs/cgroup/a/b/cgroup.subtree_control"].empty());
}

BOOST_AUTO_TEST_CASE(conversions) {
    V2 host;
    (void)host.fs.makeDir("/sys/fs/cgroup/c");
    spec::Resources res = memory(33554432, 33558528);
    res.memory->reservation = 4096;
    res.cpu.emplace();
    res.cpu->shares = 1024;
    res.cpu->quota = -1;
    res.cpu->period = 50000;
    res.blockIO.emplace();
    res.blockIO->weight = 1000;
    res.blockIO->throttleWriteBpsDevice.push_back({8, 0, 9});
    res.pidsLimit = -1;
    res.unified["memory.high"] = "123";
    const auto settings = v2Settings("/sys/fs/cgroup/c", res, Purpose::kCreate, host.fs);
    BOOST_TEST_REQUIRE(settings.has_value());
    std::map<std::string, std::string> values;
    for (const Setting& s : *settings) values[s.path.substr(17)] = s.value;
    const std::map<std::string, std::string> expected = {
        {"memory.swap.max", "4096"}, {"memory.max", "33554432"}, {"memory.low", "4096"},
        {"cpu.weight", "100"},       {"cpu.max", "max 50000"},   {"io.weight", "10000"},
        {"io.max", "8:0 wbps=9"},    {"pids.max", "max"},        {"memory.high", "123"}};
    BOOST_TEST((values == expected));
}

BOOST_AUTO_TEST_CASE(memory_update_keeps_swap) {
    V2 host;
    (void)host.fs.makeDir("/sys/fs/cgroup/c");
    const auto update = [&](const spec::Resources& res) {
        return host.manager->update({CgroupDir{"", "/sys/fs/cgroup/c", true}}, res);
    };
    const auto file = [&](const char* name) {
        return host.fs.files[std::string("/sys/fs/cgroup/c/") + name];
    };
    BOOST_TEST_REQUIRE(update(memory(33554432, 33558528)).has_value());
    BOOST_TEST(file("memory.swap.max") == "4096");
    BOOST_TEST_REQUIRE(update(memory(43554432, std::nullopt)).has_value());
    BOOST_TEST(file("memory.swap.max") == "4096");
    BOOST_TEST(!update(memory(std::nullopt, 1048576)).has_value());
    BOOST_TEST(file("memory.swap.max") == "4096");
    BOOST_TEST_REQUIRE(update(memory(std::nullopt, 53554432)).has_value());
    BOOST_TEST(file("memory.swap.max") == "10000000");
    BOOST_TEST_REQUIRE(update(memory(-1, std::nullopt)).has_value());
    BOOST_TEST(file("memory.max") == "max");
    BOOST_TEST(file("memory.swap.max") == "max");
    BOOST_TEST(!update(memory(std::nullopt, 67108864)).has_value());
}

BOOST_AUTO_TEST_CASE(unified_names_are_file_names) {
    V2 host;
    for (const char* name : {"../x", "a/b", "", ".."}) {
        spec::Resources res;
        res.unified[name] = "1";
        BOOST_TEST(!v2Settings("/sys/fs/cgroup", res, Purpose::kCreate, host.fs).has_value());
    }
}

BOOST_AUTO_TEST_CASE(block_io_is_read_in_both_versions) {
    FakeCgroupFs fs;
    fs.files["/two/io.stat"] =
        "254:0 rbytes=2097152 wbytes=5 rios=3 wios=1 dbytes=0 dios=0\n8:0 rbytes=7";
    fs.files["/one/blkio.throttle.io_service_bytes_recursive"] =
        "254:0 Read 2097152\n254:0 Write 5\nTotal 9";
    fs.files["/one/blkio.throttle.io_serviced_recursive"] = "254:0 Read 3\n254:0 Write 1";
    for (const bool unified : {true, false}) {
        const CgroupDirs dirs = {unified ? CgroupDir{"", "/two", true}
                                         : CgroupDir{"blkio", "/one", true}};
        const ContainerStatistics found = readStatistics(dirs, unified, 0, {}, fs);
        BOOST_TEST_REQUIRE(found.block_io.has_value());
        BOOST_TEST(found.block_io->size() == (unified ? 2U : 1U));
        const BlockIoEntry& disk = found.block_io->front();
        BOOST_TEST(disk.major == 254U);
        BOOST_TEST(disk.read_bytes == 2097152U);
        BOOST_TEST(disk.write_bytes == 5U);
        BOOST_TEST(disk.reads == 3U);
        BOOST_TEST(disk.writes == 1U);
    }
}

BOOST_AUTO_TEST_CASE(huge_pages_are_read_in_both_versions) {
    FakeCgroupFs fs;
    const std::string pages = "/sys/kernel/mm/hugepages";
    for (const char* size : {"2048", "1048576", "64"}) {
        fs.dirs.insert(pages + "/hugepages-" + size + "kB");
    }
    fs.files = {{"/two/hugetlb.2MB.current", "4194304"},
                {"/two/hugetlb.2MB.rsvd.current", "6291456"},
                {"/two/hugetlb.2MB.events", "max 3"},
                {"/two/hugetlb.1GB.current", "1073741824"},
                {"/one/hugetlb.2MB.usage_in_bytes", "4194304"},
                {"/one/hugetlb.2MB.max_usage_in_bytes", "8388608"},
                {"/one/hugetlb.2MB.failcnt", "3"}};
    const auto found = [&](bool unified) {
        const CgroupDirs dirs = {unified ? CgroupDir{"", "/two", true}
                                         : CgroupDir{"hugetlb", "/one", true}};
        auto all = readStatistics(dirs, unified, 0, {}, fs).huge_pages;
        std::sort(all.begin(), all.end(),
                  [](const auto& a, const auto& b) { return a.page_size > b.page_size; });
        return all;
    };
    const auto two = found(true);
    BOOST_TEST_REQUIRE(two.size() == 2U);
    BOOST_TEST(two[0].page_size == "2MB");
    BOOST_TEST(two[0].usage == 6291456U);
    BOOST_TEST(two[0].failures == 3U);
    BOOST_TEST(two[1].page_size == "1GB");
    BOOST_TEST(two[1].usage == 1073741824U);
    const auto one = found(false);
    BOOST_TEST_REQUIRE(one.size() == 1U);
    BOOST_TEST(one[0].usage == 4194304U);
    BOOST_TEST(one[0].max_usage == 8388608U);
    BOOST_TEST(one[0].failures == 3U);
}

BOOST_AUTO_TEST_CASE(rdma_is_the_same_in_both_versions) {
    FakeCgroupFs fs;
    fs.files = {{"/c/rdma.current",
                 "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=0"},
                {"/c/rdma.max", "mlx4_0 hca_handle=5 hca_object=max"}};
    for (const bool unified : {true, false}) {
        const CgroupDirs dirs = {CgroupDir{unified ? "" : "rdma", "/c", true}};
        const auto found = readStatistics(dirs, unified, 0, {}, fs).rdma;
        BOOST_TEST_REQUIRE(found.size() == 2U);
        BOOST_TEST(found[0].device == "mlx4_0");
        BOOST_TEST(found[0].handles == 2U);
        BOOST_TEST(found[0].objects == 2000U);
        BOOST_TEST(found[0].handle_limit == 5U);
        BOOST_TEST(found[0].object_limit == kNoLimit);
        BOOST_TEST(found[1].handles == 3U);
        BOOST_TEST(found[1].object_limit == kNoLimit);
    }
}

BOOST_AUTO_TEST_CASE(a_cgroup_that_was_there_must_not_be_frozen) {
    V2 host;
    (void)host.fs.makeDir("/sys/fs/cgroup/c");
    host.fs.files["/sys/fs/cgroup/c/cgroup.procs"] = "";
    host.fs.files["/sys/fs/cgroup/c/cgroup.freeze"] = "0";
    BOOST_TEST(host.manager->locate("/c").has_value());
    host.fs.files["/sys/fs/cgroup/c/cgroup.freeze"] = "1";
    BOOST_TEST(!host.manager->locate("/c").has_value());
}

BOOST_AUTO_TEST_CASE(a_delegated_cgroup_has_another_owner) {
    V2 host;
    (void)host.fs.makeDir("/sys/fs/cgroup/c");
    host.fs.files["/sys/kernel/cgroup/delegate"] = "cgroup.procs\nmemory.oom.group\nnot.here";
    host.fs.files["/sys/fs/cgroup/c/cgroup.procs"] = "";
    host.fs.files["/sys/fs/cgroup/c/memory.oom.group"] = "0";
    host.fs.files["/sys/fs/cgroup/c/memory.max"] = "max";
    const CgroupDirs dirs = {CgroupDir{"", "/sys/fs/cgroup/c", true}};
    BOOST_TEST_REQUIRE(host.manager->delegate(dirs, 1000).has_value());
    const std::map<std::string, uid_t> wanted = {{"/sys/fs/cgroup/c", 1000},
                                                 {"/sys/fs/cgroup/c/cgroup.procs", 1000},
                                                 {"/sys/fs/cgroup/c/memory.oom.group", 1000}};
    BOOST_TEST((host.fs.owners == wanted));
}

BOOST_AUTO_TEST_CASE(freeze_state_is_what_the_kernel_reports) {
    V2 host;
    (void)host.fs.makeDir("/sys/fs/cgroup/c");
    const CgroupDirs dirs = {CgroupDir{"", "/sys/fs/cgroup/c", true}};
    BOOST_TEST_REQUIRE(host.manager->setFrozen(dirs, true).has_value());
    BOOST_TEST((*host.manager->freezeState(dirs) == FreezeState::kFreezing));
    host.fs.files["/sys/fs/cgroup/c/cgroup.events"] = "populated 1\nfrozen 1";
    BOOST_TEST((*host.manager->freezeState(dirs) == FreezeState::kFrozen));
    BOOST_TEST(host.manager->killAll(dirs).has_value());
    BOOST_TEST(host.fs.files["/sys/fs/cgroup/c/cgroup.kill"] == "1");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
