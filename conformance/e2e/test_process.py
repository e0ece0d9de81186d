"""What a configuration asks of the program beyond user, groups and limits: scheduling, CPUs, memory, labels."""

import ctypes
import os
import platform
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import SANDBOX, Case, local_only, main, ours_only, read_text, until  # noqa: E402

libc = ctypes.CDLL(None, use_errno=True)
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}.get(platform.machine())
NEWER = "runc 1.1.5 and crun 1.8.1 know it only in part or not at all"


def field(text, name):
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(name + ":"))


class ProcessCase(Case):
    def refused(self, says, **changes):
        """create fails, says why, and leaves nothing."""
        c = self.new_id()
        self.fails("create", "--bundle", self.bundle("true", **changes).path, c, says=says)
        self.assert_gone(c)

    def pid_of(self, c):
        return self.state(c)["pid"]


@ours_only(NEWER)
@local_only("the attributes are read from outside")
class Scheduler(ProcessCase):
    def start_with(self, linux=None, **scheduler):
        return self.pid_of(self.start(process={"scheduler": scheduler}, linux=linux or {}))

    def test_a_nice_value_and_a_policy_are_applied(self):
        for policy, number in (("SCHED_OTHER", os.SCHED_OTHER), ("SCHED_BATCH", os.SCHED_BATCH)):
            for nice in (-5, 7):
                with self.subTest(policy=policy, nice=nice):
                    pid = self.start_with(policy=policy, nice=nice)
                    self.assertEqual(os.sched_getscheduler(pid), number)
                    self.assertEqual(os.getpriority(os.PRIO_PROCESS, pid), nice)

    def test_idle_is_applied(self):
        self.assertEqual(os.sched_getscheduler(self.start_with(policy="SCHED_IDLE")), os.SCHED_IDLE)

    def test_reset_on_fork_is_applied(self):
        pid = self.start_with(policy="SCHED_BATCH", flags=["SCHED_FLAG_RESET_ON_FORK"])
        self.assertEqual(os.sched_getscheduler(pid), os.SCHED_BATCH | os.SCHED_RESET_ON_FORK)

    def test_a_real_time_policy_is_applied_with_its_priority(self):
        for policy, number in (("SCHED_FIFO", os.SCHED_FIFO), ("SCHED_RR", os.SCHED_RR)):
            with self.subTest(policy=policy):
                # A v1 cgroup has no real-time share of its own unless it is given one.
                pid = self.start_with({"resources": {"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 1000000}}},
                                      policy=policy, priority=3)
                self.assertEqual(os.sched_getscheduler(pid), number)
                self.assertEqual(os.sched_getparam(pid).sched_priority, 3)

    def test_an_exec_has_its_own(self):
        c = self.start(process={"scheduler": {"policy": "SCHED_BATCH", "nice": 3}})
        path = self.process_file("sleep", "600", scheduler={"policy": "SCHED_IDLE"})
        pid_file = os.path.join(self.dir, "pid")
        self.ok("exec", "-d", "--pid-file", pid_file, "--process", path, c)
        self.assertEqual(os.sched_getscheduler(int(read_text(pid_file))), os.SCHED_IDLE)
        # With flags it is another process of the container's own kind.
        self.ok("exec", "-d", "--pid-file", pid_file, c, "sleep", "600")
        self.assertEqual(os.sched_getscheduler(int(read_text(pid_file))), os.SCHED_BATCH)

    def test_wrong_ones_are_refused(self):
        for scheduler, says in (({"policy": "SCHED_NOPE"}, "policy"), ({"nice": 3}, "policy"),
                                ({"policy": "SCHED_OTHER", "nice": 20}, "nice"),
                                ({"policy": "SCHED_OTHER", "priority": 1}, "priority"),
                                ({"policy": "SCHED_FIFO"}, "priority"),
                                ({"policy": "SCHED_OTHER", "runtime": 10000}, "runtime"),
                                ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOPE"]}, "flag")):
            with self.subTest(scheduler=scheduler):
                self.refused(says, process={"scheduler": scheduler})

    def test_what_the_kernel_refuses_is_an_error(self):
        self.refused("SCHED_ISO", process={"scheduler": {"policy": "SCHED_ISO"}})


@ours_only(NEWER)
@local_only("the attributes are read from outside")
class IoPriority(ProcessCase):
    CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

    def get(self, pid):
        value = libc.syscall(IOPRIO_GET, 1, pid)
        return value >> 13, value & 7

    def test_class_and_level_are_applied(self):
        self.assertIsNotNone(IOPRIO_GET, "the number of ioprio_get(2) here")
        for name, number in self.CLASSES.items():
            with self.subTest(name=name):
                c = self.start(process={"ioPriority": {"class": name, "priority": 5}})
                self.assertEqual(self.get(self.pid_of(c)), (number, 5))

    def test_an_exec_has_its_own(self):
        c = self.start(process={"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}})
        path = self.process_file("sleep", "600", ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0})
        pid_file = os.path.join(self.dir, "pid")
        self.ok("exec", "-d", "--pid-file", pid_file, "--process", path, c)
        self.assertEqual(self.get(int(read_text(pid_file)))[0], 3)

    def test_wrong_ones_are_refused(self):
        for wrong, says in (({"class": "IOPRIO_CLASS_NOPE", "priority": 0}, "class"), ({"priority": 0}, "class"),
                            ({"class": "IOPRIO_CLASS_BE", "priority": 8}, "priority"),
                            ({"class": "IOPRIO_CLASS_BE", "priority": -1}, "priority")):
            with self.subTest(ioPriority=wrong):
                self.refused(says, process={"ioPriority": wrong})


@ours_only(NEWER)
class ExecCpuAffinity(ProcessCase):
    def allowed(self, c, affinity):
        path = self.process_file("cat", "/proc/self/status", execCPUAffinity=affinity)
        return field(self.ok("exec", "--process", path, c).out, "Cpus_allowed_list")

    def test_the_final_list_is_the_programs_else_the_initial_one(self):
        c = self.start()
        all_of_them = field(read_text("/proc/self/status"), "Cpus_allowed_list") if SANDBOX == "local" else None
        self.assertEqual(self.allowed(c, {"initial": "0"}), "0")
        last = str(max(os.sched_getaffinity(0))) if SANDBOX == "local" else "0"
        self.assertEqual(self.allowed(c, {"initial": "0", "final": last}), last)
        self.assertEqual(self.allowed(c, {"final": "0"}), "0")
        if all_of_them:
            self.assertEqual(self.allowed(c, {}), all_of_them)

    def test_the_containers_own_process_is_not_bound_by_it(self):
        free = field(self.inside("cat /proc/self/status"), "Cpus_allowed_list")
        bound = self.inside("cat /proc/self/status", process={"execCPUAffinity": {"initial": "0", "final": "0"}})
        self.assertEqual(field(bound, "Cpus_allowed_list"), free)

    def test_an_exec_by_flags_takes_the_containers(self):
        c = self.start(process={"execCPUAffinity": {"final": "0"}})
        self.assertEqual(field(self.exec(c, "cat", "/proc/self/status").out, "Cpus_allowed_list"), "0")

    def test_wrong_lists_are_refused(self):
        c = self.start()
        for wrong in ("x", "1-", "3-1", "0,,1", "8192", "-1"):
            with self.subTest(list=wrong):
                path = self.process_file("true", execCPUAffinity={"final": wrong})
                self.assertEqual(self.rt("exec", "--process", path, c).code, 255)
                self.refused("execCPUAffinity", process={"execCPUAffinity": {"initial": wrong}})

    def test_a_cpu_that_is_not_there_is_an_error(self):
        path = self.process_file("true", execCPUAffinity={"final": "8000"})
        result = self.rt("exec", "--process", path, self.start())
        self.assertEqual(result.code, 255, result)
        self.assertIn("affinity", result.err.lower())


class Personality(ProcessCase):
    @ours_only(NEWER)
    def test_linux32_is_what_the_program_and_an_exec_see(self):
        c = self.start("sh", "-c", "uname -m; cat /proc/self/personality; sleep 600",
                       linux={"personality": {"domain": "LINUX32"}})
        seen = self.exec(c, "sh", "-c", "uname -m; cat /proc/self/personality").out.split()
        self.assertEqual(int(seen[1], 16) & 0xff, 8)
        self.assertIn(seen[0], ("i686", "armv8l"))

    @ours_only(NEWER)
    def test_linux_is_the_plain_one(self):
        out = self.inside("cat /proc/self/personality", linux={"personality": {"domain": "LINUX"}})
        self.assertEqual(int(out, 16), 0)

    @ours_only(NEWER)
    def test_wrong_ones_are_refused(self):
        for wrong, says in (({"domain": "BSD"}, "domain"), ({}, "domain"),
                            ({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "flag")):
            with self.subTest(personality=wrong):
                self.refused(says, linux={"personality": wrong})


@ours_only("runc 1.1.5 and crun 1.8.1 do not know it")
class MemoryPolicy(ProcessCase):
    @staticmethod
    def numa_maps_there():
        return os.path.exists("/proc/self/numa_maps")

    def policy(self, **policy):
        out = self.inside("cat /proc/self/numa_maps", linux={"memoryPolicy": policy})
        return {line.split()[1] if not line.split()[1].startswith("weighted") and "(many)" not in line
                else " ".join(line.split()[1:3]) for line in out.splitlines()}

    def test_each_mode_is_applied(self):
        if not self.numa_maps_there():
            self.skipTest("the kernel has no CONFIG_NUMA")
        for mode, nodes, seen in (("MPOL_BIND", "0", "bind:0"), ("MPOL_PREFERRED", "0", "prefer:0"),
                                  ("MPOL_PREFERRED", "", "local"), ("MPOL_INTERLEAVE", "0", "interleave:0"),
                                  ("MPOL_LOCAL", "", "local"), ("MPOL_DEFAULT", "", "default"),
                                  ("MPOL_PREFERRED_MANY", "0-0", "prefer (many):0"),
                                  ("MPOL_WEIGHTED_INTERLEAVE", "0", "weighted interleave:0")):
            if SANDBOX != "local" and mode == "MPOL_WEIGHTED_INTERLEAVE":
                continue  # Linux 6.9; the guest's kernel is 6.1
            with self.subTest(mode=mode, nodes=nodes):
                self.assertIn(seen, self.policy(mode=mode, **({"nodes": nodes} if nodes else {})))

    def test_flags_are_applied(self):
        if not self.numa_maps_there():
            self.skipTest("the kernel has no CONFIG_NUMA")
        for flag, seen in (("MPOL_F_STATIC_NODES", "bind=static:0"), ("MPOL_F_RELATIVE_NODES", "bind=relative:0")):
            with self.subTest(flag=flag):
                self.assertIn(seen, self.policy(mode="MPOL_BIND", nodes="0", flags=[flag]))

    def test_wrong_ones_are_refused(self):
        for wrong, says in (({"mode": "MPOL_NOPE"}, "mode"), ({"nodes": "0"}, "mode"), ({"mode": "MPOL_BIND"}, "nodes"),
                            ({"mode": "MPOL_LOCAL", "nodes": "0"}, "nodes"),
                            ({"mode": "MPOL_BIND", "nodes": "0-"}, "nodes"),
                            ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NOPE"]}, "flag"),
                            ({"mode": "MPOL_BIND", "nodes": "0",
                              "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}, "flags")):
            with self.subTest(memoryPolicy=wrong):
                self.refused(says, linux={"memoryPolicy": wrong})

    def test_a_node_that_is_not_there_is_an_error(self):
        self.refused("memory policy", linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "900"}})


@ours_only("they word it in their own ways")
class SecurityModules(ProcessCase):
    """A bundle that asks for what the kernel lacks is refused: it would run less confined than it asked for."""

    @staticmethod
    def apparmor():
        return read_text("/sys/module/apparmor/parameters/enabled").startswith("Y")

    @staticmethod
    def selinux():
        return SANDBOX == "local" and os.path.exists("/sys/fs/selinux/enforce")

    @local_only("labels are this host's: test_sandbox.py")
    def test_an_apparmor_profile(self):
        if self.apparmor():
            self.refused("no-such-profile", process={"apparmorProfile": "no-such-profile"})
        else:
            self.refused("AppArmor is not enabled", process={"apparmorProfile": "no-such-profile"})

    @local_only("labels are this host's: test_sandbox.py")
    def test_a_selinux_label(self):
        if self.selinux():
            self.refused("no:such:label", process={"selinuxLabel": "no:such:label"})
        else:
            self.refused("SELinux is not enabled", process={"selinuxLabel": "system_u:system_r:container_t:s0"})

    def test_a_mount_label_is_left_out_with_a_warning(self):
        if self.selinux():
            self.skipTest("the kernel has SELinux: the label would be used")
        log = os.path.join(self.dir, "log")
        bundle = self.bundle("true", linux={"mountLabel": "system_u:object_r:container_file_t:s0"})
        self.ok("--log", log, "run", "--bundle", bundle.path, self.new_id())
        self.assertIn("mountLabel is ignored", read_text(log))

    @local_only("labels are this host's: test_sandbox.py")
    def test_those_of_an_exec(self):
        c = self.start()
        for flags, says in ((["--apparmor", "no-such-profile"], "apparmor"),
                            (["--process-label", "no:such:label"], "selinux")):
            with self.subTest(flags=flags):
                result = self.exec(c, flags, "true")
                self.assertEqual(result.code, 255, result)
                self.assertIn(says, result.err.lower())


@ours_only("runc 1.1.5 looks for the file system only, crun 1.8.1 ignores it")
class IntelRdt(ProcessCase):
    def test_without_resctrl_it_is_an_error(self):
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            if " - resctrl " in file.read():
                self.skipTest("a resctrl file system is mounted here")
        says = "no resctrl file system is mounted" if SANDBOX == "local" else "not supported in a sandbox with a guest"
        for value in ({}, {"closID": "group"}, {"l3CacheSchema": "L3:0=f"}, {"schemata": ["L3:0=f"]},
                      {"enableMonitoring": True}):
            with self.subTest(intelRdt=value):
                self.refused(f"linux.intelRdt: {says}", linux={"intelRdt": value})


class Clocks(ProcessCase):
    @ours_only("runc 1.1.5 knows no time namespaces, crun 1.8.1 fails otherwise")
    def test_wrong_offsets_are_refused(self):
        offsets = {"boottime": {"secs": 1, "nanosecs": 0}}
        self.refused("timeOffsets", linux={"timeOffsets": offsets})
        bundle = self.bundle("true")
        for wrong in ({"realtime": {"secs": 1}}, {"boottime": {"secs": 1, "nanosecs": 1000000000}},
                      {"boottime": {"secs": -10 ** 12}}, {"boottime": {"secs": 2 ** 62}}):
            with self.subTest(timeOffsets=wrong):
                namespaces = bundle.config["linux"]["namespaces"] + [{"type": "time"}]
                self.refused("", linux={"namespaces": namespaces, "timeOffsets": wrong})


class Devices(ProcessCase):
    def test_the_four_types_are_made(self):
        devices = [{"path": "/dev/c", "type": "c", "major": 1, "minor": 3}, {"path": "/dev/p", "type": "p"},
                   {"path": "/dev/u", "type": "u", "major": 1, "minor": 5},
                   {"path": "/dev/b", "type": "b", "major": 7, "minor": 3},
                   {"path": "/elsewhere/b", "type": "b", "major": 7, "minor": 4, "fileMode": 0o400}]
        out = self.inside("stat -c '%n %F %t:%T' /dev/c /dev/p /dev/u /dev/b /elsewhere/b",
                          linux={"devices": devices}, writable=True)
        self.assertEqual(out.splitlines(), [
            "/dev/c character special file 1:3", "/dev/p fifo 0:0", "/dev/u character special file 1:5",
            "/dev/b block special file 7:3", "/elsewhere/b block special file 7:4"])

    def test_one_that_is_there_already_is_left_when_it_is_the_same(self):
        same = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]
        self.assertEqual(self.inside("echo x > /dev/null; echo ok", linux={"devices": same}), "ok\n")

    @ours_only("runc 1.1.5 and crun 1.8.1 leave it as it is")
    def test_another_file_in_the_place_is_an_error(self):
        bundle = self.bundle("true", writable=True, linux={
            "devices": [{"path": "/taken", "type": "c", "major": 1, "minor": 3}]})
        with open(bundle.file("taken"), "w", encoding="ascii") as file:
            file.write("mine")
        self.fails("create", "--bundle", bundle.path, self.new_id(), says="/taken")
        self.assertEqual(read_text(bundle.file("taken")), "mine")

    @ours_only("runc 1.1.5 and crun 1.8.1 take some of them")
    def test_wrong_ones_are_refused(self):
        for wrong, says in (({"type": "x", "major": 1, "minor": 3}, "type"), ({"major": 1, "minor": 3}, "type"),
                            ({"type": "c", "minor": 3}, "major"), ({"type": "b", "major": 3}, "minor"),
                            ({"type": "c", "major": -1, "minor": 3}, "major"),
                            ({"type": "c", "major": 1 << 20, "minor": 3}, "major"),
                            ({"path": "dev/rel", "type": "p"}, "path")):
            with self.subTest(device=wrong):
                self.refused(says, linux={"devices": [{"path": "/dev/x", **wrong}]})


class NoProcess(ProcessCase):
    """runtime.md, "Start": it is start that needs one, and config.md: "process ... REQUIRED when start is called"."""

    def without(self, **changes):
        bundle = self.bundle(**changes)
        del bundle.config["process"]
        bundle.write()
        return bundle

    @ours_only("runc and crun refuse to create it")
    def test_it_is_created_and_its_start_is_an_error(self):
        c = self.create(self.without())
        state = self.state(c)
        self.assertEqual(state["status"], "created")
        self.assertTrue(os.path.exists(f"/proc/{state['pid']}"))
        self.fails("start", c, says="process")
        self.wait_status(c, "stopped")
        self.ok("delete", c)

    @ours_only("runc and crun refuse to create it")
    def test_it_can_be_killed_or_deleted_unstarted(self):
        c = self.create(self.without())
        self.ok("kill", c, "TERM")
        self.wait_status(c, "stopped")
        self.ok("delete", c)
        self.ok("delete", self.create(self.without()))

    @ours_only("runc and crun refuse to create it")
    def test_a_process_can_be_executed_in_it(self):
        c = self.create(self.without(hostname="empty"))
        path = self.process_file("hostname")
        self.assertEqual(self.ok("exec", "--process", path, c).out, "empty\n")
        self.assertEqual(self.exec(c, "true").code, 255)  # there is no process to take the rest from

    def test_run_is_an_error_and_leaves_nothing(self):
        c = self.new_id()
        result = self.run_bundle(self.without(), identity=c)
        self.assertEqual(result.code, 1, result)
        self.assertIn("process", result.err)
        self.assert_gone(c)

    @ours_only("runc and crun refuse to create it")
    def test_its_poststop_hooks_run(self):
        mark = os.path.join(self.dir, "mark")
        hook = {"path": "/bin/touch", "args": ["touch", mark]}
        c = self.new_id()
        self.assertEqual(self.run_bundle(self.without(hooks={"poststop": [hook]}), identity=c).code, 1)
        until(lambda: os.path.exists(mark), "the hook ran")


if __name__ == "__main__":
    main()
