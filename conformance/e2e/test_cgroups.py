"""Limits, freezer, devices and statistics on a host with cgroup v1; cgroup v2 has ../cgroup2, in a VM."""

import json
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import TAG, local_only, main, ours_only, read_text  # noqa: E402
from cgroup_case import CgroupCase  # noqa: E402

ROOT = "/sys/fs/cgroup"
MIB = 1 << 20
NO_LIMIT = str((1 << 63) - 4096)


def setUpModule():
    if not os.path.exists(f"{ROOT}/memory/memory.limit_in_bytes"):
        raise unittest.SkipTest("no cgroup v1 hierarchy with the memory controller is mounted")


class Cgroup1(CgroupCase):
    def folders(self, pid):
        """{controller: folder} of a process."""
        found = {}
        for line in read_text(f"/proc/{pid}/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(","):
                found[name] = f"{ROOT}/{controllers.removeprefix('name=') or 'unified'}{path}"
        return found

    def assert_files(self, identity, files):
        folders = self.folders(self.state(identity)["pid"])
        found = {name: read_text(f"{folders[self.controller(name)]}/{name}").strip() for name in files}
        self.assertEqual(found, files)

    @staticmethod
    def controller(name):
        return name.split(".")[0]


@local_only("limits are the guest's, which has cgroup v2")
class Limits(Cgroup1):
    ROWS = [
        ({"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB, "swappiness": 10, "disableOOMKiller": True}},
         {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(96 * MIB),
          "memory.soft_limit_in_bytes": str(32 * MIB), "memory.swappiness": "10",
          "memory.oom_control": "oom_kill_disable 1\nunder_oom 0\noom_kill 0"}),
        ({"memory": {"limit": 0, "swap": 0}}, {"memory.limit_in_bytes": NO_LIMIT}),
        ({"cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 10000, "cpus": "0", "mems": "0"}},
         {"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "200000", "cpu.cfs_burst_us": "10000",
          "cpuset.cpus": "0", "cpuset.mems": "0"}),
        ({"cpu": {"idle": 1}}, {"cpu.idle": "1"}),
        ({"pids": {"limit": 20}}, {"pids.max": "20"}),
        ({"pids": {"limit": -1}}, {"pids.max": "max"}),
    ]

    def test_limits_are_written(self):
        for resources, files in self.ROWS:
            wanted = {name: value for name, value in files.items()
                      if os.path.exists(f"{ROOT}/{self.controller(name)}/") and self.kernel_has(name)}
            with self.subTest(resources=resources):
                self.assertTrue(wanted, "the kernel has none of these files")
                self.assert_files(self.created(resources), wanted)

    def kernel_has(self, name):
        """Files that the root of a hierarchy has not are looked for in any cgroup below it."""
        folder = f"{ROOT}/{self.controller(name)}/{TAG}-probe"
        os.makedirs(folder, exist_ok=True)
        try:
            return os.path.exists(f"{folder}/{name}")
        finally:
            os.rmdir(folder)

    def test_what_this_host_cannot_do_is_named(self):
        rows = [({"unified": {"memory.high": "1"}}, ("linux.resources.unified", "cgroup v1")),
                ({"memory": {"swap": 64 * MIB}}, ("unable to set swap limit without memory limit",)),
                ({"cpu": {"cpus": "777"}}, ("cpuset.cpus", "777")),
                ({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}, ("hugetlb",))]
        mounted = {name for line in read_text("/proc/self/cgroup").splitlines() for name in line.split(":")[1].split(",")}
        for controller, resources in (("net_cls", {"network": {"classID": 5}}), ("rdma", {"rdma": {"x": {"hcaHandles": 1}}}),
                                      ("net_prio", {"network": {"priorities": [{"name": "lo", "priority": 1}]}})):
            if controller not in mounted:
                rows.append((resources, (f"cgroup controller {controller} is not mounted",)))
        for resources, says in rows:
            with self.subTest(resources=resources):
                self.create_fails(resources, *says)

    def test_update_changes_what_is_given_and_nothing_on_failure(self):
        c = self.created({"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100000}})
        self.ok("update", "--pids-limit", "30", "--cpu-period", "50000", c)
        now = {"memory.limit_in_bytes": str(64 * MIB), "pids.max": "30", "cpu.cfs_quota_us": "50000",
               "cpu.cfs_period_us": "50000"}
        self.assert_files(c, now)
        self.fails("update", "--pids-limit", "40", "--cpuset-cpus", "777", c, says="cpuset.cpus")
        self.assert_files(c, now)

    @ours_only("crun reports no OOM kills")
    def test_an_oom_kill_is_an_event(self):
        folder = os.path.join(self.dir, "fifo")
        os.mkdir(folder)
        os.mkfifo(os.path.join(folder, "go"))
        c = self.create(self.bundle("sh", "-c", "read x </dev/shm/go; tail /dev/zero; true", linux={
            "resources": {"memory": {"limit": 12 * MIB}}},
            mounts=[{"destination": "/dev/shm", "type": "bind", "source": folder, "options": ["bind"]}]))
        self.ok("start", c)
        output = os.path.join(self.dir, "events")
        with open(output, "wb") as out:
            events = self.spawn(self.command("events", "--interval", "10m", c), stdout=out)
        self.wait_text(output, '"stats"')
        with open(os.path.join(folder, "go"), "w", encoding="ascii") as go:
            go.write("go\n")
        self.wait_text(output, '{"type":"oom","id":"' + c + '"}')
        self.assertEqual(events.wait(15), 0)


@local_only("limits are the guest's, which has cgroup v2")
@unittest.skipUnless(all(os.path.exists(f"{ROOT}/{name}") for name in ("hugetlb", "net_cls", "net_prio", "rdma", "blkio")),
                     "no cgroup v1 hierarchy of hugetlb, net_cls, net_prio, rdma and blkio: ctest vm_cgroup1 has them")
class OtherControllers(Cgroup1):
    def assert_line(self, identity, name, line):
        folders = self.folders(self.state(identity)["pid"])
        self.assertIn(line, read_text(f"{folders[self.controller(name)]}/{name}").splitlines())

    def test_huge_pages_are_limited_and_counted(self):
        c = self.created({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]})
        self.assert_files(c, {"hugetlb.2MB.limit_in_bytes": str(4 * MIB)})
        usage = json.loads(self.ok("events", "--stats", c).out)["data"]["hugetlb"]
        self.assertEqual(usage["2MB"]["failcnt"], 0, usage)
        self.create_fails({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}, "hugetlb")

    def test_packets_have_a_class_and_a_priority(self):
        c = self.created({"network": {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 3}]}})
        self.assert_files(c, {"net_cls.classid": str(0x100001)})
        self.assert_line(c, "net_prio.ifpriomap", "lo 3")
        self.create_fails({"network": {"priorities": [{"name": "no-such-link", "priority": 3}]}}, "net_prio", "no-such-link")

    def test_block_devices_are_throttled(self):
        name = sorted(os.listdir("/sys/block"))[0]
        major, minor = map(int, read_text(f"/sys/block/{name}/dev").split(":"))
        device = {"major": major, "minor": minor}
        c = self.created({"blockIO": {"throttleReadBpsDevice": [{**device, "rate": 1 << 20}],
                                      "throttleWriteIOPSDevice": [{**device, "rate": 77}]}})
        self.assert_line(c, "blkio.throttle.read_bps_device", f"{major}:{minor} {1 << 20}")
        self.assert_line(c, "blkio.throttle.write_iops_device", f"{major}:{minor} 77")
        self.ok("update", "--blkio-weight", "200", c)
        self.assert_files(c, {"blkio.bfq.weight": "200"})

    def test_an_rdma_device_that_is_not_there_is_named(self):
        self.create_fails({"rdma": {"no_such_hca": {"hcaHandles": 1}}}, "rdma", "no_such_hca")


@local_only("the cgroup is the guest's")
class Places(Cgroup1):
    def test_a_frozen_cgroup_is_refused(self):
        folder = f"{ROOT}/freezer/{TAG}-frozen"
        os.mkdir(folder)
        self.addCleanup(os.rmdir, folder)
        with open(f"{folder}/freezer.state", "w", encoding="ascii") as file:
            file.write("FROZEN")
        self.create_fails({}, "container's cgroup unexpectedly frozen", cgroupsPath=f"/{TAG}-frozen")

    def test_exec_joins_other_cgroups_for_some_controllers(self):
        c = self.start()
        folders = self.folders(self.state(c)["pid"])
        for controller, name in (("pids", "a"), ("memory", "b"), ("freezer", "b")):
            os.mkdir(f"{folders[controller]}/{name}")
        output = os.path.join(self.dir, "out")
        with open(output, "wb") as out:
            result = self.exec(c, ["--cgroup", "pids:a", "--cgroup", "memory,freezer:/b"], "cat", "/proc/self/cgroup",
                               stdout=out)
        self.assertEqual(result.code, 0, result)
        paths = {controller: line.split(":", 2)[2] for line in read_text(output).splitlines()
                 for controller in line.split(":")[1].split(",")}
        below = {controller: path.rpartition("/")[2] for controller, path in paths.items()}
        own = os.path.basename(folders["cpu"])
        self.assertEqual((below["pids"], below["memory"], below["freezer"], below["cpu"]), ("a", "b", "b", own))
        self.fails("exec", "--cgroup", "nonsense:a", c, "true", code=255, says="no cgroup controller nonsense")

    def test_a_paused_container_can_be_killed_and_deleted(self):
        c = self.start()
        pid = self.state(c)["pid"]
        self.ok("pause", c)
        self.assertEqual(self.state(c)["status"], "paused")
        self.ok("kill", c, "KILL")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), -signal.SIGKILL)
        c = self.start()
        self.ok("pause", c)
        self.ok("delete", "--force", c)

    @ours_only("runc has no such flag")
    def test_without_a_cgroup_manager_the_container_is_where_its_caller_is(self):
        identity = self.new_id()
        self.ids.append(identity)
        bundle = self.bundle("sleep", "600")
        self.ok("--cgroup-manager", "disabled", "create", "--bundle", bundle.path, identity)
        pid = self.state(identity)["pid"]
        self.assertEqual(read_text(f"/proc/{pid}/cgroup"), read_text("/proc/self/cgroup"))
        self.ok("start", identity)
        self.fails("pause", identity, says="has no cgroup of its own")
        self.assertEqual(json.loads(self.ok("ps", "--format", "json", identity).out), [pid])
        self.ok("delete", "--force", identity)

    @ours_only("the error's text is ours")
    def test_without_systemd_its_cgroup_manager_says_so(self):
        identity = self.new_id()
        bundle = self.bundle("true")
        self.fails("--systemd-cgroup", "create", "--bundle", bundle.path, identity,
                   says=("--systemd-cgroup: cannot reach systemd over D-Bus",))
        self.assert_gone(identity)


if __name__ == "__main__":
    main()
