#include "vminitd/rootless_cgroups.h"

#include <unistd.h>

#include <algorithm>
#include <boost/test/unit_test.hpp>
#include <cerrno>

#include "vminitd/fake_cgroup_fs.h"

namespace arca::vminitd {
namespace {

const char kV2Mountinfo[] = "30 22 0:27 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
const char kV1Mountinfo[] =
    "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "35 30 0:32 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n"
    "38 30 0:35 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n";

// Refuses to make directories below `refused`.
class GuardedFs : public FakeCgroupFs {
 public:
    std::string refused;
    int why = EACCES;

    base::Result<bool> makeDir(const std::string& path) override {
        if (!refused.empty() && path.rfind(refused + "/", 0) == 0) {
            return base::failErrno("mkdir " + path, why);
        }
        return FakeCgroupFs::makeDir(path);
    }
};

struct Host {
    explicit Host(const char* mountinfo) {
        fs.populate = [](FakeCgroupFs& made, const std::string& dir) {
            for (const char* file :
                 {"cgroup.procs", "pids.max", "devices.allow", "devices.deny", "memory.max",
                  "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}) {
                made.files[dir + "/" + file] = "";
            }
        };
        fs.dirs.insert("/sys/fs/cgroup");
        for (const char* name : {"memory", "devices", "pids"}) {
            (void)fs.makeDir(std::string("/sys/fs/cgroup/") + name);
        }
        manager = std::move(*makeCgroupManager(parseHierarchies(mountinfo), fs));
        dirs = *manager->locate("/c");
    }

    GuardedFs fs;
    std::unique_ptr<CgroupManager> manager;
    CgroupDirs dirs;
};

spec::Resources memoryLimit() {
    spec::Resources resources;
    resources.memory.emplace().limit = 1 << 26;
    return resources;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(rootless_cgroups)

BOOST_AUTO_TEST_CASE(a_tree_without_permission_is_done_without) {
    Host host(kV2Mountinfo);
    host.fs.refused = "/sys/fs/cgroup";
    BOOST_TEST(makeRootlessCgroups(*host.manager, host.dirs, {}).has_value());
    BOOST_TEST(host.dirs.empty());
}

BOOST_AUTO_TEST_CASE(limits_that_need_it_are_an_error) {
    for (const char* mountinfo : {kV2Mountinfo, kV1Mountinfo}) {
        Host host(mountinfo);
        host.fs.refused = mountinfo == kV2Mountinfo ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
        const auto made = makeRootlessCgroups(*host.manager, host.dirs, memoryLimit());
        BOOST_TEST_REQUIRE(!made.has_value());
        BOOST_TEST(made.error().message().find("cannot set limits") != std::string::npos);
    }
}

BOOST_AUTO_TEST_CASE(hierarchies_with_permission_are_used) {
    Host host(kV1Mountinfo);
    host.fs.refused = "/sys/fs/cgroup/memory";
    spec::Resources resources;
    resources.pidsLimit = 5;
    BOOST_TEST(makeRootlessCgroups(*host.manager, host.dirs, resources).has_value());
    BOOST_TEST(host.dirs.size() == 2U);
    BOOST_TEST(host.fs.files["/sys/fs/cgroup/pids/c/pids.max"] == "5");
}

BOOST_AUTO_TEST_CASE(device_rules_are_given_up_and_nothing_else_is) {
    Host host(kV1Mountinfo);
    host.fs.veto = [](const std::string& path, const std::string&) {
        return path.find("/devices.") == std::string::npos ? 0 : EPERM;
    };
    spec::Resources resources;
    resources.devices.emplace_back();
    BOOST_TEST(makeRootlessCgroups(*host.manager, host.dirs, resources).has_value());
    BOOST_TEST(host.dirs.size() == 3U);
    host.fs.refused = "/sys/fs/cgroup/pids";
    host.fs.why = ENOSPC;
    host.dirs = *host.manager->locate("/d");
    BOOST_TEST(!makeRootlessCgroups(*host.manager, host.dirs, {}).has_value());
}

BOOST_AUTO_TEST_CASE(a_cgroup_that_the_process_may_not_join_is_removed) {
    Host host(kV1Mountinfo);
    BOOST_TEST_REQUIRE(makeRootlessCgroups(*host.manager, host.dirs, {}).has_value());
    host.fs.veto = [](const std::string& path, const std::string&) {
        return path == "/sys/fs/cgroup/pids/c/cgroup.procs" ? EACCES : 0;
    };
    BOOST_TEST(addRootlessProcess(*host.manager, host.dirs, 17).has_value());
    BOOST_TEST(host.dirs.size() == 2U);
    BOOST_TEST(!host.fs.exists("/sys/fs/cgroup/pids/c"));
    BOOST_TEST(host.fs.files["/sys/fs/cgroup/memory/c/cgroup.procs"] == "17");
}

BOOST_AUTO_TEST_CASE(the_processes_of_ones_own_namespace_are_found) {
    const auto found = processesBeside(::getpid());
    BOOST_TEST_REQUIRE(found.has_value());
    BOOST_TEST((std::find(found->begin(), found->end(), ::getpid()) != found->end()));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace arca::vminitd
