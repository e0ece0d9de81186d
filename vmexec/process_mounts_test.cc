// vmexec against the kernel: what is mounted and made in the rootfs.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "base/scope_exit.h"
#include "vmexec/test_body.h"

namespace {

using arca::base::ScopeExit;
using arca::spec::NamespaceType;
using arca::spec::Plan;
using arca::vmexec::testing::asRoot;
using arca::vmexec::testing::Body;
using arca::vmexec::testing::Bundle;
using arca::vmexec::testing::contains;
using arca::vmexec::testing::defaultPlan;
using arca::vmexec::testing::failureOf;
using arca::vmexec::testing::outputOf;
using arca::vmexec::testing::withUserNamespace;

}  // namespace

BOOST_AUTO_TEST_SUITE(vmexec_mounts, *boost::unit_test::precondition(asRoot))

BOOST_AUTO_TEST_CASE(default_devices_links_and_mounts_are_there) {
    const Bundle bundle;
    const std::string text = outputOf(
        defaultPlan(bundle, {}),
        "for i in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' /dev/$i; done; "
        "readlink /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx; readlink /dev/fd; "
        "readlink /dev/ptmx; readlink /dev/stderr; grep -c . /proc/self/mountinfo");
    BOOST_TEST(contains(text, "/dev/null 1:3 666 character special file\n"));
    BOOST_TEST(contains(text, "/dev/tty 5:0 666 character special file\n"));
    BOOST_TEST(contains(text, "/proc/self/fd\npts/ptmx\n/proc/self/fd/2\n7\n"));
}

BOOST_AUTO_TEST_CASE(configured_devices_have_their_mode_and_owner) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.spec.linux.devices = {{'c', "/dev/fuse", 10, 229, 0640, 3, 4},
                               {'b', "/x/y/loop", 7, 0, std::nullopt, 0, 0},
                               {'p', "/dev/pipe", 0, 0, 0600, 0, 0}};
    const std::string text =
        outputOf(plan, "stat -c '%n %t:%T %a %u:%g %F' /dev/fuse /x/y/loop /dev/pipe");
    BOOST_TEST(text ==
               "/dev/fuse a:e5 640 3:4 character special file\n"
               "/x/y/loop 7:0 666 0:0 block special file\n"
               "/dev/pipe 0:0 600 0:0 fifo\n");
}

BOOST_AUTO_TEST_CASE(other_file_in_the_place_of_a_device_is_an_error) {
    const Bundle bundle;
    bundle.write("/taken", "x");
    Plan plan = defaultPlan(bundle, {"true"});
    plan.spec.linux.devices = {{'c', "/taken", 10, 229, std::nullopt, 0, 0}};
    BOOST_TEST(failureOf(plan) == "device /taken: another file is there already");
}

BOOST_AUTO_TEST_CASE(links_are_made_in_a_bound_dev_and_what_is_there_stays) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    const std::string dev = bundle.path() + "/dev";
    BOOST_TEST_REQUIRE(::mkdir(dev.c_str(), 0755) == 0);
    BOOST_TEST_REQUIRE(::mkdir((dev + "/fd").c_str(), 0755) == 0);
    BOOST_TEST_REQUIRE(::symlink("/proc/self/fd/0", (dev + "/stdin").c_str()) == 0);
    plan.spec.mounts = {plan.spec.mounts.front(), {"/dev", "bind", dev, {"rbind", "ro"}, {}, {}}};
    plan.spec.process->args = {"sh", "-c", "ls /dev; touch /dev/x"};
    Body body(plan);
    BOOST_TEST(body.run() == 1);
    BOOST_TEST(contains(body.output(), "fd\nstderr\nstdin\nstdout\n"));
    BOOST_TEST_REQUIRE(body.warnings().size() == 1U);
    BOOST_TEST(body.warnings().front() == "/dev/fd: something else is there already and stays");
}

BOOST_AUTO_TEST_CASE(ro_is_for_the_top_and_rro_for_the_tree) {
    const Bundle bundle;
    const std::string sub = bundle.path() + "/src/sub";
    BOOST_TEST_REQUIRE(arca::base::makeDirs(sub, 0755).has_value());
    BOOST_TEST_REQUIRE(::mount("t", sub.c_str(), "tmpfs", 0, nullptr) == 0);
    const ScopeExit unmount([&] { (void)::umount(sub.c_str()); });
    const auto run = [&](std::vector<std::string> options) {
        Plan plan = defaultPlan(bundle, {});
        plan.spec.mounts.push_back({"/data", "bind", "src", std::move(options), {}, {}});
        return outputOf(plan,
                        "touch /data/x 2>/dev/null && echo top; "
                        "touch /data/sub/x 2>/dev/null && echo sub; grep -c noexec.*data "
                        "/proc/self/mountinfo; true");
    };
    BOOST_TEST(run({"rbind", "rro"}) == "0\n");
    BOOST_TEST(run({"rbind", "ro"}) == "sub\n0\n");
    BOOST_TEST(contains(run({"rbind"}), "top\nsub\n"));
}

BOOST_AUTO_TEST_CASE(read_only_root_keeps_its_flags_and_what_is_mounted_in_it) {
    const Bundle bundle;
    const std::string root = bundle.rootfs();
    BOOST_TEST_REQUIRE(::mount(root.c_str(), root.c_str(), nullptr, MS_BIND, nullptr) == 0);
    const ScopeExit unmount([&] { (void)::umount2(root.c_str(), MNT_DETACH); });
    BOOST_TEST_REQUIRE(::mount(nullptr, root.c_str(), nullptr,
                               MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOATIME,
                               nullptr) == 0);
    Plan plan = withUserNamespace(defaultPlan(bundle, {}));
    BOOST_TEST_REQUIRE(::chown(root.c_str(), 100000, 100000) == 0);
    plan.spec.root->readonly = true;
    plan.spec.mounts.push_back({"/run/new", "tmpfs", "tmpfs", {"mode=0755"}, {}, {}});
    const std::string text =
        outputOf(plan,
                 "touch /x 2>/dev/null || echo refused; touch /run/new/x && grep ' / ro' "
                 "/proc/self/mountinfo");
    BOOST_TEST(contains(text, "refused\n"));
    BOOST_TEST(contains(text, " / ro,nosuid,nodev,noatime "));
}

BOOST_AUTO_TEST_CASE(mounts_never_leave_the_rootfs) {
    const Bundle bundle;
    BOOST_TEST_REQUIRE(::symlink("../../../../../outside", bundle.rootfs("/esc").c_str()) == 0);
    Plan plan = defaultPlan(bundle, {});
    plan.spec.mounts.push_back({"/esc/in", "tmpfs", "tmpfs", {}, {}, {}});
    plan.spec.process->args = {"true"};
    // The symlink dangles inside the root: what it names is made there, and nothing outside.
    {
        Body body(plan);
        BOOST_TEST(body.ready());
    }
    BOOST_TEST(::access(bundle.rootfs("/outside/in").c_str(), F_OK) == 0);
    BOOST_TEST(::access("/outside", F_OK) != 0);
    plan.spec.mounts.back() = {"/plink/sys", "tmpfs", "tmpfs", {}, {}, {}};
    BOOST_TEST_REQUIRE(::symlink("/proc", bundle.rootfs("/plink").c_str()) == 0);
    BOOST_TEST(
        contains(failureOf(plan), "\"/proc/sys\" cannot be mounted because it is inside /proc"));
    plan.spec.mounts.back() = {"/proc", "tmpfs", "tmpfs", {}, {}, {}};
    BOOST_TEST(contains(failureOf(plan), "not of type proc"));
}

BOOST_AUTO_TEST_CASE(mount_failures_name_source_destination_and_reason) {
    const Bundle bundle;
    const auto failure = [&](arca::spec::Mount mount) {
        Plan plan = defaultPlan(bundle, {"true"});
        plan.spec.mounts.push_back(std::move(mount));
        return failureOf(plan);
    };
    BOOST_TEST(failure({"/a", "bind", "/nosuch", {"bind"}, {}, {}}) ==
               "mount /nosuch at /a: open /nosuch: no such file or directory");
    BOOST_TEST(contains(failure({"/etc", "bind", "/bin/busybox", {"bind"}, {}, {}}),
                        "mount /bin/busybox at /etc: attach: not a directory"));
    BOOST_TEST(contains(failure({"/t", "tmpfs", "tmpfs", {"nosuch=1"}, {}, {}}),
                        "Unknown parameter 'nosuch'"));
    BOOST_TEST(contains(failure({"/t", "nosuchfs", "x", {}, {}, {}}), "no such device"));
    BOOST_TEST(contains(failure({"/t", "bind", "/etc", {"bind", "idmap"}, {}, {}}),
                        "option idmap needs mappings or a user namespace"));
}

BOOST_AUTO_TEST_CASE(idmapped_bind_shows_other_owners) {
    const Bundle bundle;
    const std::string source = bundle.path() + "/src";
    BOOST_TEST_REQUIRE(::mkdir(source.c_str(), 0755) == 0);
    Plan plan = defaultPlan(bundle, {});
    plan.spec.mounts.push_back(
        {"/data", "bind", source, {"bind", "idmap"}, {{0, 5000, 10}}, {{0, 6000, 10}}});
    BOOST_TEST(outputOf(plan, "stat -c %u:%g /data") == "5000:6000\n");
}

BOOST_AUTO_TEST_CASE(tmpcopyup_begins_with_what_is_below) {
    const Bundle bundle;
    BOOST_TEST_REQUIRE(::mkdir(bundle.rootfs("/cu").c_str(), 0711) == 0);
    bundle.write("/cu/file", "text", 04755);
    BOOST_TEST_REQUIRE(::symlink("file", bundle.rootfs("/cu/link").c_str()) == 0);
    Plan plan = defaultPlan(bundle, {});
    plan.spec.mounts.push_back({"/cu", "tmpfs", "tmpfs", {"tmpcopyup"}, {}, {}});
    BOOST_TEST(outputOf(plan, "cat /cu/link; stat -c ' %a' /cu /cu/file; touch /cu/new") ==
               "text 711\n 4755\n");
    BOOST_TEST(::access(bundle.rootfs("/cu/new").c_str(), F_OK) != 0);
}

BOOST_AUTO_TEST_CASE(masked_and_read_only_paths_and_sysctls) {
    const Bundle bundle;
    bundle.write("/etc/secret", "secret");
    Plan plan = defaultPlan(bundle, {});
    plan.spec.linux.maskedPaths = {"/etc/secret", "/bin/../sys/kernel", "/nosuch"};
    plan.spec.linux.readonlyPaths = {"/proc/sys", "/tmp", "/nosuch"};
    plan.spec.linux.sysctl = {{"net.ipv4.ip_forward", "1"}, {"kernel/msgmax", "9999"}};
    plan.spec.hostname = "masked";
    plan.spec.domainname = "example";
    const std::string text = outputOf(
        plan,
        "cat /etc/secret; ls /sys/kernel; touch /tmp/x 2>/dev/null || echo ro; "
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; hostname; "
        "cat /proc/sys/kernel/domainname; (echo 0 >/proc/sys/net/ipv4/ip_forward) 2>/dev/null || "
        "echo refused");
    BOOST_TEST(text == "ro\n1\n9999\nmasked\nexample\nrefused\n");
}

BOOST_AUTO_TEST_CASE(bind_sources_that_only_the_runtime_may_reach_are_mounted_in_a_user_namespace) {
    const Bundle bundle;
    const std::string hidden = bundle.path() + "/hidden";
    BOOST_TEST_REQUIRE(arca::base::makeDirs(hidden + "/data", 0755).has_value());
    BOOST_TEST_REQUIRE(::chown(hidden.c_str(), 3000, 3000) == 0);
    BOOST_TEST_REQUIRE(::chmod(hidden.c_str(), 0700) == 0);
    Plan plan = withUserNamespace(defaultPlan(bundle, {}));
    BOOST_TEST_REQUIRE(::mkdir(bundle.rootfs("/data").c_str(), 0755) == 0);
    plan.spec.mounts.push_back({"/data", "bind", hidden + "/data", {"bind", "ro"}, {}, {}});
    BOOST_TEST(contains(outputOf(plan, "grep ' /data ' /proc/self/mountinfo"), " /data ro,"));
}

BOOST_AUTO_TEST_CASE(without_a_mount_namespace_nothing_is_left_mounted) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    std::erase_if(plan.spec.linux.namespaces,
                  [](const auto& ns) { return ns.type == NamespaceType::kMount; });
    BOOST_TEST(outputOf(plan, "echo $$; ls /dev/null; ls /proc/1/status; pwd") ==
               "1\n/dev/null\n/proc/1/status\n/\n");
    BOOST_TEST(!contains(arca::base::readFile("/proc/self/mountinfo").value(), bundle.path()));
}

BOOST_AUTO_TEST_CASE(no_pivot_moves_the_root) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.no_pivot = true;
    BOOST_TEST(contains(outputOf(plan, "ls /"), "bin\n"));
}

BOOST_AUTO_TEST_CASE(root_has_the_propagation_that_is_asked_for) {
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    const std::string script = "grep -E ' / rw' /proc/self/mountinfo";
    BOOST_TEST(!contains(outputOf(plan, script), "shared:"));
    for (const char* word : {"shared", "rshared"}) {
        plan.spec.linux.rootfsPropagation = word;
        BOOST_TEST(contains(outputOf(plan, script), "shared:"), word);
    }
    for (const char* word : {"unbindable", "runbindable"}) {
        plan.spec.linux.rootfsPropagation = word;
        BOOST_TEST(contains(outputOf(plan, script), " unbindable "), word);
    }
    for (const char* word : {"private", "rslave"}) {
        plan.spec.linux.rootfsPropagation = word;
        BOOST_TEST(!contains(outputOf(plan, script), "shared:"), word);
    }
    // Nothing of it reached the caller.
    BOOST_TEST(!contains(arca::base::readFile("/proc/self/mountinfo").value(), bundle.path()));
}

BOOST_AUTO_TEST_CASE(cgroups_are_mounted_with_and_without_a_cgroup_namespace) {
    if (::access("/sys/fs/cgroup/memory/cgroup.procs", F_OK) != 0) {
        BOOST_TEST_MESSAGE("skipped: no v1 memory hierarchy at /sys/fs/cgroup/memory");
        return;
    }
    const Bundle bundle;
    Plan plan = defaultPlan(bundle, {});
    plan.cgroup_paths = {"/sys/fs/cgroup/memory"};
    plan.spec.mounts.push_back(
        {"/sys/fs/cgroup", "cgroup", "cgroup", {"nosuid", "noexec", "nodev", "ro"}, {}, {}});
    const std::string script =
        "grep -c ' /sys/fs/cgroup.* ro,nosuid,nodev,noexec' /proc/self/mountinfo; "
        "test -f /sys/fs/cgroup/memory/cgroup.procs && ls /sys/fs/cgroup";
    BOOST_TEST(outputOf(plan, script) == "2\nmemory\n");
    plan.spec.linux.namespaces.push_back({NamespaceType::kCgroup, ""});
    BOOST_TEST(outputOf(plan, script) == "2\nmemory\n");
}

BOOST_AUTO_TEST_CASE(user_namespace_sees_the_hosts_proc_and_sys_where_it_may_not_mount_its_own) {
    const Bundle bundle;
    Plan plan = withUserNamespace(defaultPlan(bundle, {}));
    std::erase_if(plan.spec.linux.namespaces,
                  [](const auto& ns) { return ns.type == NamespaceType::kNetwork; });
    BOOST_TEST(contains(outputOf(plan, "grep ' /sys ' /proc/self/mountinfo"),
                        " /sys ro,nosuid,nodev,noexec"));
}

BOOST_AUTO_TEST_SUITE_END()
