"""Namespaces of a container: new ones, the caller's, given by path; user ids mapped; clocks shifted."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import KIND, Case, local_only, main, ours_only, read_text, until  # noqa: E402

FILE = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup",
        "user": "user", "time": "time"}
MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def link(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{FILE[kind]}")


class Kinds(Case):
    def bundle_with(self, namespaces, *args, **changes):
        changes.setdefault("linux", {})["namespaces"] = namespaces
        return self.bundle(*(args or ("sleep", "600")), **changes)

    @local_only("compares with namespaces of this host")
    def test_each_listed_namespace_is_new(self):
        kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup")
        c = self.create(self.bundle_with([{"type": kind} for kind in kinds]))
        pid = self.state(c)["pid"]
        for kind in kinds:
            with self.subTest(kind=kind):
                self.assertNotEqual(link(pid, kind), link("self", kind))

    @local_only("compares with namespaces of this host")
    def test_a_namespace_not_listed_is_the_callers(self):
        c = self.create(self.bundle_with([{"type": "mount"}], hostname=None))
        pid = self.state(c)["pid"]
        for kind in ("pid", "network", "ipc", "uts", "user", "cgroup"):
            with self.subTest(kind=kind):
                self.assertEqual(link(pid, kind), link("self", kind))
        self.assertNotEqual(link(pid, "mount"), link("self", "mount"))

    def holder(self, *flags):
        """A process that keeps new namespaces; for a process namespace it is its first process."""
        holder = self.spawn(["unshare", *flags, "--", "sleep", "600"])
        until(lambda: read_text(f"/proc/{holder.pid}/comm") == "sleep\n" or "--fork" in flags, "the holder is there")
        if "--fork" not in flags:
            return holder.pid
        children = f"/proc/{holder.pid}/task/{holder.pid}/children"
        return int(until(lambda: read_text(children).split(), "the forked holder")[0])

    @local_only("compares with namespaces of this host")
    def test_a_namespace_given_by_path_is_joined(self):
        for kind, flags in (("network", ["--net"]), ("ipc", ["--ipc"]), ("uts", ["--uts"]),
                            ("cgroup", ["--cgroup"]), ("pid", ["--pid", "--fork", "--kill-child"])):
            with self.subTest(kind=kind):
                pid = self.holder(*flags)
                path = f"/proc/{pid}/ns/{FILE[kind]}"
                others = [{"type": other} for other in ("pid", "ipc", "uts", "mount", "network") if other != kind]
                c = self.create(self.bundle_with([*others, {"type": kind, "path": path}],
                                                 hostname=None if kind == "uts" else "other"))
                self.assertEqual(link(self.state(c)["pid"], kind), os.readlink(path))
                self.ok("start", c)
                self.assertEqual(link(self.state(c)["pid"], kind), os.readlink(path))
                self.ok("delete", "--force", c)

    @local_only("compares with namespaces of this host")
    def test_a_pid_namespace_given_by_path_does_not_end_with_the_container(self):
        holder = self.holder("--pid", "--fork", "--kill-child")
        c = self.create(self.bundle_with([{"type": "pid", "path": f"/proc/{holder}/ns/pid"}, {"type": "mount"}],
                                         hostname=None))
        self.ok("start", c)
        self.ok("delete", "--force", c)
        self.assertEqual(read_text(f"/proc/{holder}/comm"), "sleep\n")

    @local_only("compares with namespaces of this host")
    def test_two_containers_can_share_namespaces(self):
        first = self.start()
        pid = self.state(first)["pid"]
        kinds = ("network", "ipc", "uts", "pid")
        shared = [{"type": kind, "path": f"/proc/{pid}/ns/{FILE[kind]}"} for kind in kinds]
        second = self.create(self.bundle_with([*shared, {"type": "mount"}], hostname=None))
        self.ok("start", second)
        for kind in kinds:
            self.assertEqual(link(self.state(second)["pid"], kind), link(pid, kind))
        self.assertIn("sleep 600", self.exec(second, "ps", "-o", "args").out, "the first one's program is seen")
        self.ok("kill", first, "KILL")  # ends the process namespace, and so the second container
        self.wait_status(second, "stopped")

    def test_a_path_of_another_kind_or_none_is_refused(self):
        for path in ("/proc/self/ns/uts", os.path.join(self.dir, "absent"), self.dir, "/dev/null"):
            with self.subTest(path=path):
                bundle = self.bundle_with([{"type": "mount"}, {"type": "network", "path": path}], hostname=None)
                self.assertEqual(self.rt("create", "--bundle", bundle.path, self.new_id()).code, 1)

    def test_the_loopback_of_a_new_network_is_up(self):
        self.assertIn("UP", self.inside("ip link show lo").split("<")[1].split(">")[0].split(","))

    def test_a_new_process_namespace_shows_only_its_own(self):
        self.assertEqual(self.inside("ls -d /proc/[0-9]* | tr '\\n' ' '").split()[0], "/proc/1")
        self.assertLess(len(self.inside("ls -d /proc/[0-9]*").split()), 4)


class User(Case):
    def mapped(self, *args, mapping=MAP, **changes):
        bundle = self.bundle(*(args or ("sleep", "600")), **changes)
        subprocess.run(["chown", "-Rh", f"{mapping[0]['hostID']}:{mapping[0]['hostID']}", bundle.rootfs], check=True)
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = mapping
        bundle.write()
        return bundle

    def test_ids_are_mapped(self):
        result = self.run_bundle(self.mapped("sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g; "
                                             "stat -c %u /bin/sh"))
        self.assertEqual(result.out.split(), ["0", "100000", "65536"] * 2 + ["0", "0", "0"], result)

    @local_only("users of a guest are no users of this host, which sees a stand-in")
    def test_the_host_sees_the_mapped_user(self):
        bundle = self.mapped("sleep", "600", process={"user": {"uid": 1000, "gid": 1001}})
        c = self.create(bundle)
        self.ok("start", c)
        pid = self.state(c)["pid"]
        until(lambda: read_text(f"/proc/{pid}/comm") == "sleep\n", "the program runs")
        fields = dict(line.split(":\t") for line in read_text(f"/proc/{pid}/status").splitlines() if ":\t" in line)
        self.assertEqual((fields["Uid"].split()[0], fields["Gid"].split()[0]), ("101000", "101001"))
        self.assertNotEqual(link(pid, "user"), link("self", "user"))

    def test_several_ranges(self):
        ranges = [{"containerID": 0, "hostID": 200000, "size": 10}, {"containerID": 1000, "hostID": 300000, "size": 5}]
        result = self.run_bundle(self.mapped("cat", "/proc/self/uid_map", mapping=ranges))
        self.assertEqual(result.out.split(), ["0", "200000", "10", "1000", "300000", "5"], result)

    def test_devices_links_and_mounts_work(self):
        result = self.run_bundle(self.mapped("sh", "-c", "echo x >/dev/null && head -c 3 /dev/zero | wc -c; "
                                             "readlink /dev/fd; touch /dev/shm/x && echo shm; mount | grep -c proc; "
                                             "hostname inside 2>/dev/null; hostname", hostname="mapped"))
        self.assertEqual(result.out.split()[:3], ["3", "/proc/self/fd", "shm"], result)
        self.assertEqual(result.out.split()[-1], "mapped")

    def test_an_exec_is_in_it_too(self):
        c = self.create(self.mapped())
        self.ok("start", c)
        result = self.exec(c, ["--user", "5:6"], "sh", "-c", "id -u; id -g; head -1 /proc/self/uid_map")
        self.assertEqual(result.out.split(), ["5", "6", "0", "100000", "65536"], result)

    def test_a_terminal_belongs_to_the_mapped_user(self):
        listener = self.fd_socket()
        c = self.create(self.mapped("sh", "-c", "stat -c '%u' $(readlink /proc/self/fd/0); exit 0",
                                    process={"terminal": True}), "--console-socket", listener.path)
        terminal = listener.receive_terminal()
        self.addCleanup(terminal.close)
        self.ok("start", c)
        terminal.read_until(b"0")
        self.wait_status(c, "stopped")

    @local_only("compares with namespaces of this host")
    def test_a_user_namespace_given_by_path(self):
        holder = self.spawn(["unshare", "--user", "--", "sleep", "600"])
        until(lambda: read_text(f"/proc/{holder.pid}/comm") == "sleep\n", "the holder is there")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                file.write("0 100000 65536")
        bundle = self.mapped()
        bundle.config["linux"]["namespaces"][-1]["path"] = f"/proc/{holder.pid}/ns/user"
        if KIND != "runc":  # 1.1.5 demands them even so
            del bundle.config["linux"]["uidMappings"], bundle.config["linux"]["gidMappings"]
        bundle.write()
        c = self.create(bundle)
        self.assertEqual(link(self.state(c)["pid"], "user"), link(holder.pid, "user"))
        self.ok("start", c)
        self.assertEqual(self.exec(c, "sh", "-c", "id -u; cat /proc/self/uid_map").out.split(),
                         ["0", "0", "100000", "65536"])

    @ours_only("crun takes it as far as it goes, runc fails without the cause")
    def test_a_user_that_is_not_mapped_is_refused(self):
        bundle = self.mapped("true", process={"user": {"uid": 70000, "gid": 0}})
        self.fails("create", "--bundle", bundle.path, self.new_id(), says="70000")


@ours_only("runc 1.1.5 has no time namespaces; crun 1.8.1 fails and kills a process that is not its own")
class Time(Case):
    @local_only("compares with this host's clocks")
    def test_the_offsets_are_those_of_the_config(self):
        bundle = self.bundle("sh", "-c", "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets",
                             linux={"timeOffsets": {"boottime": {"secs": 500000, "nanosecs": 0},
                                                    "monotonic": {"secs": 7000, "nanosecs": 5}}})
        bundle.config["linux"]["namespaces"].append({"type": "time"})
        bundle.write()
        result = self.run_bundle(bundle)
        uptime, *offsets = result.out.split()
        host = float(read_text("/proc/uptime").split()[0])
        self.assertLess(abs(int(uptime) - 500000 - host), 60, result)
        self.assertEqual(offsets, ["monotonic", "7000", "5", "boottime", "500000", "0"])

    def test_an_exec_has_the_same_clock(self):
        bundle = self.bundle("sleep", "600", linux={"timeOffsets": {"boottime": {"secs": 500000, "nanosecs": 0}}})
        bundle.config["linux"]["namespaces"].append({"type": "time"})
        bundle.write()
        c = self.create(bundle)
        self.ok("start", c)
        self.assertGreater(float(self.exec(c, "cat", "/proc/uptime").out.split()[0]), 500000)


if __name__ == "__main__":
    main()
