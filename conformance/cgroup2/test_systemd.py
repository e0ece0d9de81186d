"""--systemd-cgroup: containers as transient scopes of the systemd that runs this machine, on cgroup v2.

Run by conformance/vm/in_host_root.py --systemd. Not in namespaces of its own as other test programs are: systemd
takes the number of a process as one of its own process namespace.
"""

import json
import os
import signal
import subprocess
import sys

import dbus

os.environ.setdefault("E2E_INSIDE", f"e2e-{os.getpid()}")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import RUNTIME, Case, busybox_rootfs, environment, main, read_text, until  # noqa: E402

ROOT = "/sys/fs/cgroup"
MIB = 1 << 20
NAME = "org.freedesktop.systemd1"
INFINITY = (1 << 64) - 1
LIMITS = {"memory": {"limit": 128 * MIB, "swap": 192 * MIB, "reservation": 64 * MIB},
          "cpu": {"shares": 2048, "quota": 33333, "period": 100000, "cpus": "0", "mems": "0"}, "pids": {"limit": 50}}


class Systemd(Case):
    @classmethod
    def setUpClass(cls):
        # What systemd makes once and keeps is no leak of a test.
        os.makedirs("/run/systemd/transient", exist_ok=True)
        subprocess.run(["systemctl", "daemon-reload"], check=True)

    def setUp(self):
        super().setUp()
        self.bus = dbus.SystemBus(private=True)
        self.addCleanup(self.bus.close)
        self.manager = dbus.Interface(self.bus.get_object(NAME, "/org/freedesktop/systemd1"), f"{NAME}.Manager")

    def command(self, *words, root=None):
        command = super().command(*words, root=root)
        return [*command[:3], "--systemd-cgroup", *command[3:]]

    def container(self, path="system.slice:test:{id}", args=("sleep", "600"), started=True, identity=None, **changes):
        """A container in a scope; gives id and name of the unit."""
        identity = identity or self.new_id()
        linux = {**changes.pop("linux", {}), "cgroupsPath": path.format(id=identity)}
        bundle = self.bundle(*args, rootfs=False, root={"path": busybox_rootfs(), "readonly": True}, linux=linux, **changes)
        self.create(bundle, identity=identity)
        if started:
            self.ok("start", identity)
        return identity, f"test-{identity}.scope"

    def refused(self, path="system.slice:test:{id}", says=(), **changes):
        identity = self.new_id()
        self.ids.append(identity)
        linux = {**changes.pop("linux", {}), "cgroupsPath": path.format(id=identity)}
        bundle = self.bundle("sleep", "600", rootfs=False, root={"path": busybox_rootfs(), "readonly": True}, linux=linux,
                             **changes)
        self.fails("create", "--bundle", bundle.path, identity, says=says)
        self.assertEqual(self.units(identity), [])

    def units(self, part):
        return [str(unit[0]) for unit in self.manager.ListUnits() if part in unit[0]]

    def properties(self, unit, *names):
        """Of the unit or its scope."""
        found = self.bus.get_object(NAME, self.manager.GetUnit(unit))
        values = {**found.GetAll(f"{NAME}.Unit", dbus_interface="org.freedesktop.DBus.Properties"),
                  **found.GetAll(f"{NAME}.Scope", dbus_interface="org.freedesktop.DBus.Properties")}
        return [without_zeros(plain(values[name])) for name in names]

    def folder(self, identity):
        return ROOT + read_text(f"/proc/{self.state(identity)['pid']}/cgroup").strip().removeprefix("0::")

    def assert_files(self, folder, files):
        self.assertEqual({name: read_text(f"{folder}/{name}").strip() for name in files}, files)


def without_zeros(value):
    """Of a mask of CPUs."""
    while isinstance(value, list) and value and value[-1] == 0:
        value.pop()
    return value


def plain(value):
    if isinstance(value, (dbus.Array, list)):
        return [plain(item) for item in value]
    if isinstance(value, (dbus.Struct, tuple)):
        return tuple(plain(item) for item in value)
    for kind in (bool, int, float, str):
        if isinstance(value, dbus.Boolean if kind is bool else kind):
            return kind(value)
    return value


class Scopes(Systemd):
    def test_the_container_is_in_a_scope_of_its_slice(self):
        c, unit = self.container()
        self.assertEqual(self.folder(c), f"{ROOT}/system.slice/{unit}")
        self.assertEqual(self.properties(unit, "Slice", "Description", "Delegate", "DefaultDependencies", "ActiveState"),
                         ["system.slice", f"arca-runtime container {c}", True, False, "active"])
        self.assertEqual(self.state(c)["status"], "running")

    def test_nested_slices_are_made(self):
        c, unit = self.container("one-two-three.slice:test:{id}")
        self.assertEqual(self.folder(c), f"{ROOT}/one.slice/one-two.slice/one-two-three.slice/{unit}")

    def test_an_empty_slice_is_the_systems(self):
        c, unit = self.container(":test:{id}")
        self.assertEqual(self.folder(c), f"{ROOT}/system.slice/{unit}")

    def test_no_path_is_a_name_of_our_own(self):
        identity = self.new_id()
        self.create(self.bundle("sleep", "600"), identity=identity)
        self.assertEqual(self.folder(identity), f"{ROOT}/system.slice/arca-runtime-{identity}.scope")

    def test_a_path_of_another_form_is_refused(self):
        self.refused("/a/b", says="slice:prefix:name")
        self.refused("a--b.slice:test:{id}", says="invalid slice name: a--b.slice")

    def test_without_the_flag_such_a_path_is_refused(self):
        identity = self.new_id()
        bundle = self.bundle("true", linux={"cgroupsPath": f"system.slice:test:{identity}"})
        command = super().command("create", "--bundle", bundle.path, identity)
        command.remove("--systemd-cgroup")
        result = self.call(command)
        self.assertEqual(result.code, 1)
        self.assertIn("--systemd-cgroup was not given", result.err)

    def test_delete_leaves_no_unit(self):
        c, unit = self.container()
        folder = self.folder(c)
        self.ok("kill", c, "KILL")
        self.wait_status(c, "stopped")
        self.ok("delete", c)
        self.assertEqual((self.units(unit), os.path.exists(folder)), ([], False))

    def test_delete_by_force_of_a_running_and_a_paused_one(self):
        for paused in (False, True):
            c, unit = self.container()
            if paused:
                self.ok("pause", c)
                self.assertEqual(self.state(c)["status"], "paused")
            self.ok("delete", "--force", c)
            self.assertEqual(self.units(unit), [])

    def test_run_in_the_foreground_leaves_no_unit(self):
        identity = self.new_id()
        bundle = self.bundle("sh", "-c", "cat /proc/self/cgroup; exit 3", linux={"cgroupsPath": f":test:{identity}"})
        result = self.run_bundle(bundle, identity=identity)
        self.assertEqual((result.code, result.out), (3, "0::/\n"))
        self.assertEqual(self.units(identity), [])

    def test_a_unit_that_failed_is_forgotten(self):
        c, unit = self.container(args=("sh", "-c", "tail /dev/zero; true"), linux={
            "resources": {"memory": {"limit": 12 * MIB, "swap": 12 * MIB}}})
        self.wait_status(c, "stopped")
        self.ok("delete", c)
        self.assertEqual(self.units(unit), [])

    def test_a_name_that_is_taken_is_refused_and_stays(self):
        c, unit = self.container()
        identity = self.new_id()
        self.ids.append(identity)
        bundle = self.bundle("true", linux={"cgroupsPath": f"system.slice:test:{c}"})
        self.fails("create", "--bundle", bundle.path, identity, says=unit)
        self.assertEqual(self.state(c)["status"], "running")
        self.assertEqual(self.properties(unit, "ActiveState"), ["active"])

    def test_exec_kill_and_ps(self):
        c, unit = self.container()
        self.assertEqual(self.exec(c, "cat", "/proc/self/cgroup").out, "0::/\n")
        pid = self.state(c)["pid"]
        self.assertEqual(json.loads(self.ok("ps", "--format", "json", c).out), [pid])
        self.assertIn(f"/{unit}", read_text(f"/proc/{pid}/cgroup"))
        self.ok("pause", c)
        self.ok("kill", c, "KILL")
        self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), -signal.SIGKILL)

    def test_a_bus_that_is_not_there_is_named(self):
        identity = self.new_id()
        bundle = self.bundle("true")
        nowhere = environment(DBUS_SYSTEM_BUS_ADDRESS="unix:path=/no/bus")
        os.rename("/run/systemd/private", "/run/systemd/private.away")
        try:
            self.fails("create", "--bundle", bundle.path, identity, says=("cannot reach systemd", "/no/bus"), env=nowhere)
        finally:
            os.rename("/run/systemd/private.away", "/run/systemd/private")

    def test_without_a_bus_systemd_is_talked_to_itself(self):
        nowhere = environment(DBUS_SYSTEM_BUS_ADDRESS="unix:path=/no/bus")
        identity = self.new_id()
        bundle = self.bundle("sleep", "600", linux={"cgroupsPath": f":test:{identity}"})
        self.create(bundle, identity=identity, env=nowhere)
        self.assertEqual(self.folder(identity), f"{ROOT}/system.slice/test-{identity}.scope")
        self.ok("delete", "--force", identity, env=nowhere)
        self.assertEqual(self.units(identity), [])

    def test_features_say_so(self):
        result = self.call([RUNTIME, "features"])
        self.assertTrue(json.loads(result.out)["linux"]["cgroup"]["systemd"])

    def test_a_container_without_the_flag_is_beside_them(self):
        identity = self.new_id()
        self.ids.append(identity)
        bundle = self.bundle("sleep", "600", linux={"resources": {"pids": {"limit": 5}}})
        command = super().command("create", "--bundle", bundle.path, identity)
        command.remove("--systemd-cgroup")
        self.assertEqual(self.call(command).code, 0)
        self.assertEqual(self.folder(identity), f"{ROOT}/{identity}")


class Properties(Systemd):
    WANTED = {"MemoryMax": 128 * MIB, "MemorySwapMax": 64 * MIB, "MemoryLow": 64 * MIB, "CPUWeight": 174,
              "CPUQuotaPerSecUSec": 340000, "CPUQuotaPeriodUSec": 100000, "TasksMax": 50, "AllowedCPUs": [1],
              "AllowedMemoryNodes": [1]}
    FILES = {"memory.max": str(128 * MIB), "memory.swap.max": str(64 * MIB), "memory.low": str(64 * MIB),
             "cpu.weight": "174", "cpu.max": "33333 100000", "pids.max": "50", "cpuset.cpus": "0", "cpuset.mems": "0"}

    def test_limits_are_properties_and_exact_in_the_cgroup(self):
        c, unit = self.container(linux={"resources": LIMITS})
        self.assertEqual(self.properties(unit, *self.WANTED), list(self.WANTED.values()))
        self.assert_files(self.folder(c), self.FILES)

    def test_what_systemd_has_no_property_for_is_written(self):
        c, _ = self.container(linux={"resources": {"unified": {"cgroup.max.descendants": "3"}, "cpu": {
            "quota": 50000, "period": 100000, "burst": 20000}, "hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]}})
        self.assert_files(self.folder(c), {"cgroup.max.descendants": "3", "cpu.max.burst": "20000",
                                           "hugetlb.2MB.max": str(2 * MIB)})

    def test_limits_outlive_a_reload_of_systemd(self):
        c, _ = self.container(linux={"resources": LIMITS})
        self.manager.Reload()
        self.assert_files(self.folder(c), {**self.FILES, "cpu.max": read_text(f"{self.folder(c)}/cpu.max").strip()})

    def test_update_changes_both(self):
        c, unit = self.container(linux={"resources": LIMITS})
        self.ok("update", "--memory", "64m", "--memory-swap", "64m", "--cpu-quota", "22222", "--pids-limit", "-1", c)
        self.assertEqual(self.properties(unit, "MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax", "CPUWeight"),
                         [64 * MIB, 0, 230000, INFINITY, 174])
        self.assert_files(self.folder(c), {**self.FILES, "memory.max": str(64 * MIB), "memory.swap.max": "0",
                                           "cpu.max": "22222 100000", "pids.max": "max"})
        self.manager.Reload()
        self.assert_files(self.folder(c), {"memory.max": str(64 * MIB), "memory.swap.max": "0", "pids.max": "max"})

    def test_a_refused_update_changes_neither(self):
        c, unit = self.container(linux={"resources": LIMITS})
        self.fails("update", "--pids-limit", "7", "--cpuset-cpus", "77", c, says="cpuset.cpus")
        self.assertEqual(self.properties(unit, *self.WANTED), list(self.WANTED.values()))
        self.assert_files(self.folder(c), self.FILES)

    def test_annotations_are_properties(self):
        _, unit = self.container(annotations={
            "org.systemd.property.TimeoutStopSec": "5", "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['dbus.service']", "org.systemd.property.SendSIGHUP": "true"})
        timeout, collect, after, hangup = self.properties(unit, "TimeoutStopUSec", "CollectMode", "After", "SendSIGHUP")
        self.assertEqual((timeout, collect, hangup), (5_000_000, "inactive-or-failed", True))
        self.assertIn("dbus.service", after)

    def test_a_property_that_systemd_does_not_know_is_refused(self):
        self.refused(annotations={"org.systemd.property.NoSuchThing": "true"}, says="NoSuchThing")

    def test_a_value_that_is_none_is_refused(self):
        self.refused(annotations={"org.systemd.property.After": "[dbus.service]"}, says="org.systemd.property.After")

    def test_a_limit_that_the_kernel_refuses_leaves_no_unit(self):
        self.refused(linux={"resources": {"unified": {"memory.nonsense": "1"}}}, says="memory.nonsense")

    def test_devices_are_those_of_the_rules(self):
        number = os.stat("/dev/vda").st_rdev
        node = {"path": "/dev/vda", "type": "b", "major": os.major(number), "minor": os.minor(number)}
        read = "head -c1 /dev/vda >/dev/null 2>&1 && echo yes || echo no"
        write = "true 2>/dev/null >>/dev/vda && echo yes || echo no"
        for rule, wanted in ((None, "no no"), ({"access": "r"}, "yes no"), ({"access": "rw"}, "yes yes")):
            rules = [{"allow": False, "access": "rwm"}]
            if rule:
                rules.append({"allow": True, "type": "b", "major": node["major"], "minor": node["minor"], **rule})
            with self.subTest(rule=rule):
                c, unit = self.container(linux={"devices": [node], "resources": {"devices": rules}})
                result = self.exec(c, "sh", "-c", f"{read}; {write}; echo x >/dev/null && tty </dev/null >/dev/null; echo ok")
                self.assertEqual(result.out.split(), [*wanted.split(), "ok"], result)
                self.assertEqual(self.properties(unit, "DevicePolicy"), ["strict"])
                self.manager.Reload()
                result = self.exec(c, "sh", "-c", f"{read}; {write}")
                self.assertEqual(result.out.split(), wanted.split(), "after a reload")

    def test_statistics(self):
        c, _ = self.container(linux={"resources": LIMITS})
        data = json.loads(self.ok("events", "--stats", c).out)["data"]
        self.assertEqual((data["memory"]["usage"]["limit"], data["pids"]["limit"]), (128 * MIB, 50))
        until(lambda: json.loads(self.ok("events", "--stats", c).out)["data"]["cpu"]["usage"]["total"] > 0, "time is counted")


if __name__ == "__main__":
    main()
