"""Limits, freezer, devices, delegation and statistics on a host with cgroup v2 alone; one case a row of a table.

Run by conformance/vm/in_host_root.py in a VM, whose kernel has every controller; /dev/vda is an empty disk there.
"""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import TAG, main, read_text, until, wait_process  # noqa: E402
from cgroup_case import CgroupCase  # noqa: E402

ROOT = "/sys/fs/cgroup"
MIB = 1 << 20
DISK = "/dev/vda"
BFQ = "io.bfq.weight"
# Joins the cgroup, takes one huge page (MAP_HUGETLB, which mmap has no name for) and holds it.
USE_HUGE_PAGE = """
import mmap, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write("0")
page = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
page[0] = 1
print("mapped", end="", flush=True)
sys.stdin.read()
"""


def disk_number():
    number = os.stat(DISK).st_rdev
    return os.major(number), os.minor(number)


def disk(**members):
    major, minor = disk_number()
    return {"major": major, "minor": minor, **members}


def disk_key():
    return "{}:{}".format(*disk_number())


class Cgroup2(CgroupCase):
    """Knows where a container's cgroup is."""

    @classmethod
    def setUpClass(cls):
        with open("/proc/self/cgroup", encoding="ascii") as file:
            if not file.read().startswith("0::"):
                raise AssertionError("these tests need a host with cgroup v2 alone")
        with open(f"/sys/block/{os.path.basename(DISK)}/queue/scheduler", "w", encoding="ascii") as file:
            file.write("bfq")  # weights of one device need it

    def path(self, identity):
        """The cgroup of a container's init as a folder."""
        return ROOT + read_text(f"/proc/{self.state(identity)['pid']}/cgroup").strip().removeprefix("0::")

    def assert_files(self, folder, files):
        found = {name: read_text(f"{folder}/{name}").strip() for name in files}
        self.assertEqual(found, files)

    def create_fails(self, resources, *says, **linux):
        identity = super().create_fails(resources, *says, **linux)
        self.assertFalse(os.path.exists(f"{ROOT}/{identity}"))


def cases(table):
    """Makes a test method of each row: (name, what the method of the class needs...)."""
    def decorate(cls):
        for name, *row in table:
            def method(self, row=tuple(row)):
                self.row(*(part() if callable(part) else part for part in row))
            method.__name__ = f"test_{name}"
            if hasattr(cls, method.__name__):
                raise AssertionError(f"two rows are named {name}")
            setattr(cls, method.__name__, method)
        return cls
    return decorate


def text(number):
    return str(number)


@cases([
    ("memory_limit_is_memory_max", {"memory": {"limit": 64 * MIB}}, {"memory.max": text(64 * MIB), "memory.swap.max": "max"}),
    ("memory_limit_of_zero_is_none", {"memory": {"limit": 0, "swap": 0}}, {"memory.max": "max", "memory.swap.max": "max"}),
    ("memory_limit_of_minus_one_is_none", {"memory": {"limit": -1}}, {"memory.max": "max", "memory.swap.max": "max"}),
    ("swap_counts_memory_and_swap", {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
     {"memory.max": text(64 * MIB), "memory.swap.max": text(32 * MIB)}),
    ("swap_equal_to_memory_is_no_swap", {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, {"memory.swap.max": "0"}),
    ("swap_of_minus_one_is_unlimited", {"memory": {"limit": 64 * MIB, "swap": -1}}, {"memory.swap.max": "max"}),
    ("reservation_is_memory_low", {"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}}, {"memory.low": text(32 * MIB)}),
    ("kernel_memory_has_no_counterpart", {"memory": {"limit": 64 * MIB, "kernel": 32 * MIB, "kernelTCP": 16 * MIB}},
     {"memory.max": text(64 * MIB)}),
    ("check_before_update_does_not_disturb_create", {"memory": {"limit": 64 * MIB, "checkBeforeUpdate": True}},
     {"memory.max": text(64 * MIB)}),
    ("shares_2_are_weight_1", {"cpu": {"shares": 2}}, {"cpu.weight": "1"}),
    ("shares_512_are_weight_59", {"cpu": {"shares": 512}}, {"cpu.weight": "59"}),
    ("shares_1024_are_weight_100", {"cpu": {"shares": 1024}}, {"cpu.weight": "100"}),
    ("shares_262144_are_weight_10000", {"cpu": {"shares": 262144}}, {"cpu.weight": "10000"}),
    ("shares_of_zero_are_none", {"cpu": {"shares": 0}}, {"cpu.weight": "100"}),
    ("quota_and_period", {"cpu": {"quota": 50000, "period": 200000}}, {"cpu.max": "50000 200000"}),
    ("quota_alone_has_the_default_period", {"cpu": {"quota": 50000}}, {"cpu.max": "50000 100000"}),
    ("quota_of_minus_one_is_unlimited", {"cpu": {"quota": -1, "period": 50000}}, {"cpu.max": "max 50000"}),
    ("period_alone_has_no_quota", {"cpu": {"period": 50000}}, {"cpu.max": "max 50000"}),
    ("burst", {"cpu": {"quota": 50000, "period": 100000, "burst": 20000}},
     {"cpu.max": "50000 100000", "cpu.max.burst": "20000"}),
    ("idle", {"cpu": {"idle": 1, "shares": 1024}}, {"cpu.idle": "1"}),
    ("idle_of_zero_keeps_the_weight", {"cpu": {"idle": 0, "shares": 2048}}, {"cpu.idle": "0", "cpu.weight": "174"}),
    ("cpus_and_mems", {"cpu": {"cpus": "1", "mems": "0"}}, {"cpuset.cpus": "1", "cpuset.mems": "0"}),
    ("pids_limit", {"pids": {"limit": 50}}, {"pids.max": "50"}),
    ("pids_limit_of_minus_one_is_none", {"pids": {"limit": -1}}, {"pids.max": "max"}),
    ("block_weight", {"blockIO": {"weight": 500}}, {BFQ: "default 500"}),
    ("block_weight_of_a_device", lambda: {"blockIO": {"weightDevice": [disk(weight=300)]}},
     lambda: {BFQ: f"default 100\n{disk_key()} 300"}),
    ("throttled_devices", lambda: {"blockIO": {"throttleReadBpsDevice": [disk(rate=MIB)],
                                               "throttleWriteBpsDevice": [disk(rate=2 * MIB)],
                                               "throttleReadIOPSDevice": [disk(rate=100)],
                                               "throttleWriteIOPSDevice": [disk(rate=200)]}},
     lambda: {"io.max": f"{disk_key()} rbps={MIB} wbps={2 * MIB} riops=100 wiops=200"}),
    ("hugepages_used_and_reserved", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
     {"hugetlb.2MB.max": text(4 * MIB), "hugetlb.2MB.rsvd.max": text(4 * MIB)}),
    ("unified_high", {"unified": {"memory.high": text(32 * MIB)}}, {"memory.high": text(32 * MIB)}),
    ("unified_wins_over_the_rest", {"memory": {"limit": 64 * MIB}, "unified": {"memory.max": text(48 * MIB)}},
     {"memory.max": text(48 * MIB)}),
    ("unified_of_several_lines", lambda: {"unified": {"io.max": f"{disk_key()} rbps={MIB}\n{disk_key()} wiops=7\n"}},
     lambda: {"io.max": f"{disk_key()} rbps={MIB} wbps=max riops=max wiops=7"}),
    ("unified_core_file", {"unified": {"cgroup.max.descendants": "3"}}, {"cgroup.max.descendants": "3"}),
])
class LimitsOfCreate(Cgroup2):
    def row(self, resources, files):
        c = self.created(resources)
        self.assert_files(self.path(c), files)


@cases([
    ("swap_without_memory_is_refused", {"memory": {"swap": 64 * MIB}}, "unable to set swap limit without memory limit"),
    ("swap_below_memory_is_refused", {"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}, "memory+swap limit"),
    ("swappiness_is_refused", {"memory": {"swappiness": 10}}, "linux.resources.memory.swappiness: does not exist in cgroup v2"),
    ("an_oom_killer_cannot_be_disabled", {"memory": {"disableOOMKiller": True}},
     "linux.resources.memory.disableOOMKiller: does not exist in cgroup v2"),
    ("realtime_is_refused", {"cpu": {"realtimeRuntime": 1000}}, "do not exist in cgroup v2"),
    ("shares_of_one_are_refused", {"cpu": {"shares": 1}}, "minimum allowed cpu-shares is 2"),
    ("burst_above_the_quota_is_refused", {"cpu": {"quota": 10000, "burst": 50000}}, "above the quota"),
    ("a_cpu_that_is_not_there_is_refused", {"cpu": {"cpus": "77"}}, "77", "cpuset.cpus"),
    ("leaf_weight_is_refused", {"blockIO": {"leafWeight": 100}}, "leafWeight"),
    ("a_disk_that_is_not_there_is_refused", {"blockIO": {"throttleReadBpsDevice": [{"major": 250, "minor": 99, "rate": 1}]}},
     "250:99", "io.max"),
    ("a_page_size_that_is_not_there_is_refused", {"hugepageLimits": [{"pageSize": "1MB", "limit": 0}]},
     "hugetlb.1MB.max", "which was asked for"),
    ("network_limits_are_refused", {"network": {"classID": 5}}, "cgroup v2 has no such limit"),
    ("an_rdma_device_that_is_not_there_is_refused", {"rdma": {"mlx5_1": {"hcaHandles": 3}}}, "mlx5_1 hca_handle=3", "rdma.max"),
    ("a_unified_file_that_is_not_there_is_refused", {"unified": {"memory.nonsense": "1"}}, "memory.nonsense"),
    ("a_unified_path_is_refused", {"unified": {"../x/memory.max": "1"}}, "must be the name of a cgroup file"),
])
class RefusedAtCreate(Cgroup2):
    def row(self, resources, *says):
        self.create_fails(resources, *says)


START = {"memory": {"limit": 128 * MIB, "swap": 256 * MIB}, "cpu": {"quota": 50000, "period": 100000, "shares": 512},
         "pids": {"limit": 100}}
UNCHANGED = {"memory.max": text(128 * MIB), "memory.swap.max": text(128 * MIB), "cpu.max": "50000 100000",
             "cpu.weight": "59", "pids.max": "100"}


@cases([
    ("memory", ["--memory", "64m"], {"memory.max": text(64 * MIB)}),
    ("memory_and_swap", ["--memory", "64m", "--memory-swap", "96m"],
     {"memory.max": text(64 * MIB), "memory.swap.max": text(32 * MIB)}),
    ("swap_alone_counts_from_the_limit_that_is_there", ["--memory-swap", "192m"], {"memory.swap.max": text(64 * MIB)}),
    ("memory_of_minus_one_lifts_swap_too", ["--memory", "-1"], {"memory.max": "max", "memory.swap.max": "max"}),
    ("memory_reservation", ["--memory-reservation", "16m"], {"memory.low": text(16 * MIB)}),
    ("cpu_quota_keeps_the_period", ["--cpu-quota", "20000"], {"cpu.max": "20000 100000"}),
    ("cpu_period_keeps_the_quota", ["--cpu-period", "60000"], {"cpu.max": "50000 60000"}),
    ("cpu_quota_of_minus_one", ["--cpu-quota", "-1"], {"cpu.max": "max 100000"}),
    ("cpu_burst", ["--cpu-burst", "10000"], {"cpu.max.burst": "10000"}),
    ("cpu_share", ["--cpu-share", "1024"], {"cpu.weight": "100"}),
    ("cpu_idle", ["--cpu-idle", "1"], {"cpu.idle": "1", "cpu.weight": "0"}),
    ("cpuset", ["--cpuset-cpus", "0", "--cpuset-mems", "0"], {"cpuset.cpus": "0", "cpuset.mems": "0"}),
    ("pids_limit", ["--pids-limit", "20"], {"pids.max": "20"}),
    ("pids_limit_of_minus_one", ["--pids-limit", "-1"], {"pids.max": "max"}),
    ("blkio_weight", ["--blkio-weight", "200"], {BFQ: "default 200"}),
])
class Update(Cgroup2):
    def row(self, flags, changed):
        c = self.created(START)
        folder = self.path(c)
        self.assert_files(folder, UNCHANGED)
        self.ok("update", *flags, c)
        self.assert_files(folder, {**UNCHANGED, **changed})

    def test_resources_from_stdin_change_what_is_not_zero(self):
        c = self.created(START)
        wanted = {"memory": {"limit": 0, "swap": 0, "reservation": 8 * MIB}, "pids": {"limit": 0},
                  "cpu": {"quota": 0, "period": 0, "shares": 1024, "cpus": "", "mems": ""}, "blockIO": {"weight": 0}}
        self.ok("update", "--resources", "-", c, stdin=json.dumps(wanted).encode())
        self.assert_files(self.path(c), {**UNCHANGED, "memory.low": text(8 * MIB), "cpu.weight": "100"})

    def test_resources_from_a_file(self):
        c = self.created(START)
        path = os.path.join(self.dir, "resources.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump({"unified": {"memory.high": text(32 * MIB)}, "pids": {"limit": 7}}, file)
        self.ok("update", "--resources", path, "--pids-limit", "9", c)
        self.assert_files(self.path(c), {**UNCHANGED, "memory.high": text(32 * MIB), "pids.max": "7"})

    def test_a_refused_value_changes_nothing(self):
        c = self.created(START)
        self.fails("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "5", "--cpuset-cpus", "77", c,
                   says="cpuset.cpus")
        self.assert_files(self.path(c), UNCHANGED)

    def test_check_before_update_refuses_a_limit_below_the_use(self):
        script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; echo ready; sleep 600"
        output = os.path.join(self.dir, "out")
        with open(output, "wb") as out:
            c = self.create(self.bundle("sh", "-c", script, linux={"resources": {"memory": {"limit": 64 * MIB}}}), stdout=out)
        self.ok("start", c)
        self.wait_text(output, "ready")
        wanted = {"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}}
        self.fails("update", "--resources", "-", c, stdin=json.dumps(wanted).encode(), says="rejecting memory limit 8388608")
        self.assert_files(self.path(c), {"memory.max": text(64 * MIB)})

    def test_a_stopped_container_is_not_updated(self):
        c = self.start("true")
        self.wait_status(c, "stopped")
        self.fails("update", "--pids-limit", "5", c, says="container not running")

    def test_device_rules_stay_as_they_are(self):
        c = self.start("sleep", "600", linux={"devices": [disk(path=DISK, type="b")]})
        wanted = {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 9}}
        self.ok("update", "--resources", "-", c, stdin=json.dumps(wanted).encode())
        self.assertEqual(self.exec(c, "head", "-c1", DISK).code, 1)


class Limited(Cgroup2):
    """That the kernel keeps to the limits for the processes in the container."""

    def test_a_pids_limit_stops_forks(self):
        bundle = self.bundle("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; echo all",
                             linux={"resources": {"pids": {"limit": 5}}})
        result = self.run_bundle(bundle)
        self.assertNotEqual(result.code, 0, result)
        self.assertIn("fork", result.err)

    def test_cpus_are_those_of_the_affinity(self):
        out = self.inside("grep Cpus_allowed_list /proc/self/status", linux={"resources": {"cpu": {"cpus": "1"}}})
        self.assertEqual(out.split(), ["Cpus_allowed_list:", "1"])

    def test_an_oom_kill_is_an_event_and_counted(self):
        c = self.create(self.bundle("sh", "-c", "read x </dev/shm/go; tail /dev/zero", linux={
            "resources": {"memory": {"limit": 12 * MIB, "swap": 12 * MIB}}},
            mounts=[{"destination": "/dev/shm", "type": "bind", "source": self.fifo_folder(), "options": ["bind"]}]))
        pid = self.state(c)["pid"]
        folder = self.path(c)
        self.ok("start", c)
        output = os.path.join(self.dir, "events")
        with open(output, "wb") as out:
            events = self.spawn(self.command("events", "--interval", "10m", c), stdout=out)
        self.wait_text(output, '"stats"')
        with open(os.path.join(self.dir, "fifo", "go"), "w", encoding="ascii") as go:
            go.write("go\n")
        self.wait_text(output, '"oom"')
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), -signal.SIGKILL)
        self.assertEqual(events.wait(15), 0)
        lines = [json.loads(line) for line in read_text(output).splitlines()]
        self.assertEqual([line for line in lines if line["type"] == "oom"], [{"type": "oom", "id": c}])
        self.assertRegex(read_text(f"{folder}/memory.events"), r"oom_kill [1-9]")

    def fifo_folder(self):
        folder = os.path.join(self.dir, "fifo")
        os.mkdir(folder)
        os.mkfifo(os.path.join(folder, "go"))
        return folder


DENY_ALL = {"allow": False, "access": "rwm"}
READ = f"head -c1 {DISK} >/dev/null 2>&1 && echo yes || echo no"
WRITE = f"true 2>/dev/null >>{DISK} && echo yes || echo no"


@cases([
    ("a_device_without_a_rule_is_refused", [], "no no"),
    ("a_rule_for_all_types_refuses", [DENY_ALL], "no no"),
    ("a_rule_for_all_types_allows", [DENY_ALL, {"allow": True, "access": "rwm"}], "yes yes"),
    ("reading_is_allowed_and_writing_refused", lambda: [DENY_ALL, disk(allow=True, type="b", access="r")], "yes no"),
    ("writing_is_allowed_and_reading_refused", lambda: [DENY_ALL, disk(allow=True, type="b", access="w")], "no yes"),
    ("all_minors_of_a_major", lambda: [DENY_ALL, {"allow": True, "type": "b", "major": disk_number()[0], "access": "rw"}],
     "yes yes"),
    ("another_type_of_the_same_number_is_refused", lambda: [DENY_ALL, disk(allow=True, type="c", access="rw")], "no no"),
    ("a_later_rule_takes_access_away",
     lambda: [DENY_ALL, disk(allow=True, type="b", access="rw"), disk(allow=False, type="b", access="w")], "yes no"),
    ("all_but_one_device", lambda: [{"allow": True, "access": "rwm"}, disk(allow=False, type="b", access="rwm")], "no no"),
])
class Devices(Cgroup2):
    def row(self, rules, expected):
        out = self.inside(f"{READ}; {WRITE}; echo x >/dev/null && head -c4 /dev/urandom | wc -c", linux={
            "devices": [disk(path=DISK, type="b")], "resources": {"devices": rules}})
        self.assertEqual(out.split(), [*expected.split(), "4"], "the last is what every container may open")


class Places(Cgroup2):
    def test_an_absolute_path(self):
        path = f"/{TAG}-top/between/leaf"
        c = self.created({"pids": {"limit": 9}}, cgroupsPath=path)
        self.addCleanup(self.remove_parents, f"{ROOT}/{TAG}-top/between")
        self.assertEqual(self.path(c), ROOT + path)
        self.assert_files(ROOT + path, {"pids.max": "9"})
        self.ok("delete", "--force", c)
        self.assertFalse(os.path.exists(ROOT + path))

    def remove_parents(self, folder):
        while folder != ROOT:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)
            folder = os.path.dirname(folder)

    def test_a_relative_path_is_below_the_root(self):
        path = f"{TAG}-relative/leaf"
        c = self.created({}, cgroupsPath=path)
        self.addCleanup(self.remove_parents, f"{ROOT}/{TAG}-relative")
        self.assertEqual(self.path(c), f"{ROOT}/{path}")
        self.ok("delete", "--force", c)

    def test_no_path_is_the_id(self):
        c = self.created({})
        self.assertEqual(self.path(c), f"{ROOT}/{c}")

    def test_dots_do_not_lead_out(self):
        c = self.created({}, cgroupsPath=f"/../../{TAG}-dots/../{TAG}-dots")
        self.assertEqual(self.path(c), f"{ROOT}/{TAG}-dots")

    def test_a_cgroup_with_processes_is_refused(self):
        c = self.created({})
        identity = self.new_id()
        self.ids.append(identity)
        bundle = self.bundle("true", linux={"cgroupsPath": f"/{c}"})
        self.fails("create", "--bundle", bundle.path, identity, says="container's cgroup is not empty: 1 process(es)")

    def test_a_frozen_cgroup_is_refused(self):
        folder = f"{ROOT}/{TAG}-frozen"
        os.mkdir(folder)
        self.addCleanup(os.rmdir, folder)
        with open(f"{folder}/cgroup.freeze", "w", encoding="ascii") as file:
            file.write("1")
        identity = self.new_id()
        self.ids.append(identity)
        bundle = self.bundle("true", linux={"cgroupsPath": f"/{TAG}-frozen"})
        self.fails("create", "--bundle", bundle.path, identity, says="container's cgroup unexpectedly frozen")

    def test_a_cgroup_that_was_there_stays(self):
        folder = f"{ROOT}/{TAG}-before"
        os.mkdir(folder)
        self.addCleanup(os.rmdir, folder)
        c = self.created({"pids": {"limit": 7}}, cgroupsPath=f"/{TAG}-before")
        self.ok("delete", "--force", c)
        self.assertTrue(os.path.isdir(folder))

    def test_a_namespace_shows_its_own_root(self):
        out = self.inside("cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs")
        self.assertEqual(out, "0::/\n/sys/fs/cgroup/cgroup.procs\n")

    def test_nested_cgroups_work_and_go_with_the_container(self):
        mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                 "options": ["nosuid", "noexec", "nodev", "relatime", "rw"]}
        config = self.bundle().config
        mounts = [mount if entry["destination"] == "/sys/fs/cgroup" else entry for entry in config["mounts"]]
        script = ("cd /sys/fs/cgroup && mkdir in && echo 0 > in/cgroup.procs && echo +pids > cgroup.subtree_control && "
                  "mkdir in2 && echo 5 > in2/pids.max && echo done && exec sleep 600")
        output = os.path.join(self.dir, "out")
        bundle = self.bundle("sh", "-c", script)
        bundle.config["mounts"] = mounts
        bundle.write()
        with open(output, "wb") as out:
            c = self.create(bundle, stdout=out)
        folder = self.path(c)
        self.ok("start", c)
        self.wait_text(output, "done")
        self.assertEqual(self.path(c), f"{folder}/in")
        result = self.exec(c, "cat", "/proc/self/cgroup")
        self.assertEqual(result.out, "0::/in\n", "an exec goes where the init is, the container's own is no leaf any more")
        self.assertEqual(self.exec(c, ["--cgroup", "/in2"], "cat", "/proc/self/cgroup").out, "0::/in2\n")
        self.assertEqual(self.exec(c, ["--cgroup", "in2", "--cgroup", "in"], "true").code, 255)
        self.ok("delete", "--force", c)
        self.assertFalse(os.path.exists(folder))


class Delegation(Cgroup2):
    """runtime-spec, config-linux.md, "Cgroup ownership"."""

    OWNER = 200000

    def owned(self, options, **linux):
        mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}
        maps = [{"containerID": 0, "hostID": self.OWNER, "size": 65536}]
        bundle = self.bundle("sleep", "600", writable=True, linux={"uidMappings": maps, "gidMappings": maps, **linux})
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        bundle.config["mounts"] = [mount if entry["destination"] == "/sys/fs/cgroup" else entry
                                   for entry in bundle.config["mounts"]]
        bundle.write()
        subprocess.run(["chown", "-R", f"{self.OWNER}:{self.OWNER}", bundle.rootfs], check=True)
        return self.create(bundle)

    def test_the_containers_root_owns_a_writable_cgroup(self):
        c = self.owned(["nosuid", "noexec", "nodev", "rw"])
        folder = self.path(c)
        self.assertEqual(os.stat(folder).st_uid, self.OWNER)
        delegated = set(read_text("/sys/kernel/cgroup/delegate").split())
        for name in sorted(os.listdir(folder)):
            wanted = self.OWNER if name in delegated else 0
            self.assertEqual(os.stat(f"{folder}/{name}").st_uid, wanted, name)
        self.ok("start", c)
        script = "cd /sys/fs/cgroup && mkdir a && echo 0 > a/cgroup.procs && cat /proc/self/cgroup; echo 1 > pids.max"
        result = self.exec(c, "sh", "-c", script)
        self.assertEqual(result.out, "0::/a\n", result)
        self.assertIn("pids.max: Permission denied", result.err)

    def test_a_read_only_cgroup_keeps_its_owner(self):
        c = self.owned(["nosuid", "noexec", "nodev", "ro"])
        self.assertEqual(os.stat(self.path(c)).st_uid, 0)
        self.assertEqual(stat.S_IMODE(os.stat(self.path(c)).st_mode), 0o755)


class Freezer(Cgroup2):
    def test_pause_and_resume(self):
        c = self.start()
        folder = self.path(c)
        self.ok("pause", c)
        self.assertEqual(self.state(c)["status"], "paused")
        self.assertIn("frozen 1", read_text(f"{folder}/cgroup.events"))
        self.fails("exec", c, "true", code=255, says="cannot exec in a paused container")
        self.ok("resume", c)
        self.assertEqual(self.state(c)["status"], "running")
        self.assertIn("frozen 0", read_text(f"{folder}/cgroup.events"))
        self.fails("resume", c, says="container not paused")

    def test_kill_ends_a_paused_container(self):
        c = self.start()
        pid = self.state(c)["pid"]
        self.ok("pause", c)
        self.ok("kill", c, "KILL")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), -signal.SIGKILL)

    def test_delete_by_force_ends_a_paused_container(self):
        c = self.start()
        folder = self.path(c)
        self.ok("pause", c)
        self.ok("delete", "--force", c)
        self.assertFalse(os.path.exists(folder))

    def test_kill_all_ends_what_left_the_init(self):
        """Without a pid namespace of its own nothing ends the rest of a container when its init has ended."""
        namespaces = [{"type": name} for name in ("mount", "uts", "ipc", "network", "cgroup")]
        c = self.start("sh", "-c", "sleep 600 & sleep 600 & wait", linux={"namespaces": namespaces})
        folder = self.path(c)
        until(lambda: len(read_text(f"{folder}/cgroup.procs").split()) == 3, "three processes")
        self.ok("kill", c, "KILL")
        until(lambda: self.reap() or not read_text(f"{folder}/cgroup.procs"), "the end of all")


class Statistics(Cgroup2):
    def test_stats_in_runcs_form(self):
        c = self.start("sh", "-c", "while :; do :; done", linux={"resources": {
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 40},
            "cpu": {"quota": 50000, "period": 100000}}})
        folder = self.path(c)
        until(lambda: "nr_throttled 0" not in read_text(f"{folder}/cpu.stat"), "the quota is used up")
        event = json.loads(self.ok("events", "--stats", c).out)
        self.assertEqual((event["type"], event["id"]), ("stats", c))
        data = event["data"]
        self.assertGreater(data["cpu"]["usage"]["total"], 0)
        self.assertGreater(data["cpu"]["throttling"]["throttledPeriods"], 0)
        self.assertEqual(data["memory"]["usage"]["limit"], 64 * MIB)
        self.assertEqual(data["memory"]["swap"]["limit"], 96 * MIB)
        self.assertGreater(data["memory"]["usage"]["usage"], 0)
        self.assertEqual(data["pids"], {"current": 1, "limit": 40})

    def test_huge_pages_are_counted(self):
        with open("/proc/sys/vm/nr_hugepages", "w", encoding="ascii") as file:
            file.write("4")
        c = self.start("sleep", "600", linux={"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]}})
        user = self.spawn([sys.executable, "-c", USE_HUGE_PAGE, self.path(c)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE)
        self.assertEqual(user.stdout.read(6), b"mapped")
        pages = json.loads(self.ok("events", "--stats", c).out)["data"]["hugetlb"]["2MB"]
        self.assertEqual(pages, {"usage": 2 * MIB, "max": 0, "failcnt": 0})
        user.stdin.close()
        user.stdout.close()
        self.assertEqual(wait_process(user), 0)
        self.assertNotIn("rdma", json.loads(self.ok("events", "--stats", c).out)["data"])

    def test_block_io_is_counted(self):
        c = self.start("sleep", "600", linux={"devices": [disk(path=DISK, type="b")], "resources": {
            "devices": [disk(allow=True, type="b", access="r")]}})
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
        self.assertEqual(self.exec(c, "dd", f"if={DISK}", "of=/dev/null", "bs=1M", "count=1").code, 0)
        data = json.loads(self.ok("events", "--stats", c).out)["data"]["blkio"]
        major, minor = disk_number()
        read = [entry["value"] for entry in data.get("ioServiceBytesRecursive", [])
                if (entry["major"], entry["minor"], entry["op"]) == (major, minor, "Read")]
        self.assertEqual(len(read), 1, (data, read_text(f"{self.path(c)}/io.stat")))
        self.assertGreaterEqual(read[0], MIB)


class WithoutCgroup(Cgroup2):
    """crun's `--cgroup-manager disabled`: the container stays where its caller is."""

    def command(self, *words, root=None):
        command = super().command(*words, root=root)
        return [*command[:3], "--cgroup-manager", "disabled", *command[3:]]

    def test_the_container_is_in_its_callers_cgroup(self):
        namespaces = [{"type": name} for name in ("pid", "mount", "uts", "ipc", "network")]
        c = self.start("sleep", "600", linux={"namespaces": namespaces})
        pid = self.state(c)["pid"]
        self.assertEqual(read_text(f"/proc/{pid}/cgroup"), read_text("/proc/self/cgroup"))
        self.assertEqual(self.exec(c, "cat", "/proc/self/cgroup").out, read_text("/proc/self/cgroup"))
        self.assertEqual(json.loads(self.ok("ps", "--format", "json", c).out), [pid])
        self.assertEqual(self.state(c)["status"], "running")
        for words in (["pause", c], ["update", "--pids-limit", "5", c]):
            self.fails(*words, says="has no cgroup of its own")
        self.assertEqual(json.loads(self.ok("events", "--stats", c).out)["id"], c)
        self.ok("delete", "--force", c)

    def test_limits_are_refused(self):
        self.create_fails({"pids": {"limit": 5}}, "linux.resources.pids: cannot be set with the cgroup manager disabled")


if __name__ == "__main__":
    main()
