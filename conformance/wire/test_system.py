#!/usr/bin/python3
"""The calls of SandboxContext about mounts, the kernel and the network, in a real VM: what each does, seen with other
means than the call itself, and which code it fails with.
"""

import os
import signal
import time
import unittest

import system_case
from system_case import FAILURE, SECONDS, InVm, World, pb

setUpModule = system_case.prepare

EMULATOR = {"binary_path": "/run/rosetta/rosetta", "name": "aarch64", "type": "M", "flags": "CF",
            "magic": r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
            "mask": r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"}


class Mounts(InVm):
    def test_a_disk_with_options(self):
        path = f"/run/container/{self.name}/rootfs"
        self.mounted("ext4", "/dev/vdb", path, "defaults", "ro", "nosuid", "noatime")
        kind, options, super_options = self.mount_of(path)
        self.assertEqual(kind, "ext4")
        self.assertLessEqual({"ro", "nosuid", "noatime"}, set(options))
        self.assertIn("ro", super_options)
        self.assertEqual(self.text(f"{path}/hello"), "from the disk\n")

    def test_a_share(self):
        self.mounted("virtiofs", "share", f"{self.folder}/share", "nodev")
        self.assertEqual(self.text(f"{self.folder}/share/shared"), "from the share\n")

    def test_file_systems_of_the_hosts_first_calls(self):
        self.mounted("tmpfs", "tmpfs", "/tmp", "mode=1777", "size=1m")
        self.assertEqual(self.call("Stat", path="/tmp").stat.mode, 0o041777)
        self.mounted("devpts", "devpts", "/dev/pts", "gid=5", "mode=620", "ptmxmode=666")
        self.assertEqual(self.mount_of("/dev/pts")[0], "devpts")
        lower, upper = f"{self.folder}/lower", f"{self.folder}/upper"
        self.mounted("tmpfs", "tmpfs", lower)
        self.mounted("tmpfs", "tmpfs", upper)
        self.write(f"{lower}/f", b"below")
        for name in ("diff", "work"):
            self.call("Mkdir", path=f"{upper}/{name}")
        self.mounted("overlay", "overlay", f"{self.folder}/rootfs", f"lowerdir={lower}", f"upperdir={upper}/diff",
                     f"workdir={upper}/work")
        self.write(f"{self.folder}/rootfs/f", b"above")
        self.assertEqual((self.text(f"{lower}/f"), self.text(f"{upper}/diff/f")), ("below", "above"))

    def test_binds_and_propagation(self):
        self.write(f"{self.folder}/from/f", b"x")
        self.mounted("none", f"{self.folder}/from", f"{self.folder}/to", "rbind", "ro")
        self.mounted("none", f"{self.folder}/from/f", f"{self.folder}/new/file", "bind")
        self.assertIn("ro", self.mount_of(f"{self.folder}/to")[1])
        with self.refused(FAILURE.INTERNAL, "read-only file system"):
            self.write(f"{self.folder}/to/g", b"")
        self.write(f"{self.folder}/new/file", b"y")
        self.assertEqual(self.text(f"{self.folder}/from/f"), "y")
        self.call("Mount", type="none", destination=f"{self.folder}/to", options=["rshared"])
        self.call("Mount", type="none", destination=f"{self.folder}/to", options=["remount", "bind", "rw"])
        self.assertIn("rw", self.mount_of(f"{self.folder}/to")[1])

    def test_mounts_that_fail(self):
        for code, text, fields in (
                (FAILURE.INTERNAL, "nosuchfs", {"type": "nosuchfs", "source": "x"}),
                (FAILURE.INTERNAL, "nosuch=1", {"type": "tmpfs", "source": "x", "options": ["nosuch=1"]}),
                (FAILURE.INVALID_ARGUMENT, "neither a type", {}),
                (FAILURE.INTERNAL, "no such file", {"type": "none", "source": "/run/none", "options": ["bind"]}),
                (FAILURE.INTERNAL, "no such file", {"type": "ext4", "source": "/dev/vdz"})):
            with self.subTest(fields=fields), self.refused(code, text):
                self.call("Mount", destination=f"{self.folder}/m", **fields)
        self.assertIsNone(self.mount_of(f"{self.folder}/m"))

    def test_a_disk_that_is_plugged_in_while_its_mount_waits(self):
        path = f"{self.folder}/late"
        waiting = self.later("Mount", type="ext4", source="/dev/vdc", destination=path)
        self.vm.monitor({"execute": "blockdev-add", "arguments": {
            "driver": "raw", "node-name": "late", "file": {"driver": "file", "filename": str(World.folder / "late")}}},
            {"execute": "device_add", "arguments": {"driver": "virtio-blk-pci", "drive": "late", "bus": "plug",
                                                    "id": "late"}})
        waiting.result(SECONDS)
        self.addCleanup(self.call, "Umount", path=path)
        self.assertEqual(self.text(f"{path}/hello"), "from the disk\n")

    def test_a_mount_that_waits_holds_up_nobody(self):
        def overtaken(attempt):
            """Whether a process has lived and died, and other calls have answers, while mounts still wait for their 2 s."""
            waiting = [self.later("Mount", type="ext4", source="/dev/vdz", destination=f"{self.folder}/{n}")
                       for n in range(8)]
            process = self.guest.create(f"{self.name}{attempt}", ["sleep", "1000"], stdout=False, stderr=False)
            process.start()
            ended = self.pool.submit(process.wait)
            process.kill(signal.SIGKILL)
            self.assertEqual(ended.result(SECONDS), 137)
            process.delete()
            self.call("Stat", path="/run")
            result = not any(future.done() for future in waiting)
            for future in waiting:
                with self.refused(FAILURE.INTERNAL, "no such file"):
                    future.result(SECONDS)
            return result
        # On a machine that does much else two seconds may pass by themselves.
        self.assertTrue(any(overtaken(attempt) for attempt in range(5)))

    def test_umount_tells_the_truth(self):
        path = f"{self.folder}/m"
        self.call("Mount", type="tmpfs", source="a", destination=path)
        self.call("Mount", type="tmpfs", source="b", destination=f"{path}/sub")
        before = time.monotonic()
        with self.refused(FAILURE.FAILED_PRECONDITION, f"umount: {path}: device or resource busy"):
            self.call("Umount", path=path)
        self.assertGreaterEqual(time.monotonic() - before, 0.5)
        self.assertIsNotNone(self.mount_of(path))
        waiting = self.later("Umount", path=path)
        self.call("Umount", path=f"{path}/sub")
        waiting.result(SECONDS)
        self.assertIsNone(self.mount_of(path))
        with self.refused(FAILURE.INVALID_ARGUMENT, "invalid argument"):
            self.call("Umount", path=path)
        with self.refused(FAILURE.INVALID_ARGUMENT, "unknown flags"):
            self.call("Umount", path=path, flags=1 << 20)

    def test_freeze_thaw_and_trim(self):
        path = f"{self.folder}/disk"
        self.mounted("ext4", "/dev/vdb", path)
        self.write(f"{path}/junk", os.urandom(3 << 20))
        self.call("FilesystemOperation", path=path, freeze=pb.FiFreezeParams())
        blocked = self.later("WriteFile", path=f"{path}/f", data=b"x",
                             flags=pb.WriteFileRequest.WriteFileFlags(create_if_missing=True))
        with self.refused(FAILURE.INTERNAL, "device or resource busy"):
            self.call("FilesystemOperation", path=path, freeze=pb.FiFreezeParams())
        self.assertFalse(blocked.done())
        self.call("FilesystemOperation", path=path, thaw=pb.FiThawParams())
        blocked.result(SECONDS)
        answer = self.call("FilesystemOperation", path=path, trim=pb.FiTrimParams(one_shot=pb.FiTrimParams.OneShot()))
        self.assertGreater(answer.trim.trimmed_bytes, 1 << 20)
        for code, text, fields in (
                (FAILURE.INVALID_ARGUMENT, "no operation", {"path": path}),
                (FAILURE.INVALID_ARGUMENT, "schedule", {"path": path, "trim": pb.FiTrimParams()}),
                (FAILURE.INVALID_ARGUMENT, "absolute", {"path": "x", "thaw": pb.FiThawParams()}),
                (FAILURE.NOT_FOUND, "no such file", {"path": path + "/no", "thaw": pb.FiThawParams()}),
                (FAILURE.INTERNAL, "symlink", {"path": path + "/out", "freeze": pb.FiFreezeParams()}),
                (FAILURE.INTERNAL, "thaw", {"path": path, "thaw": pb.FiThawParams()})):
            with self.subTest(text=text), self.refused(code, text):
                self.call("FilesystemOperation", **fields)


class KernelAndNetwork(InVm):
    def test_environment(self):
        self.call("Setenv", key="WIRE", value="a value")
        self.assertEqual(self.call("Getenv", key="WIRE").value, "a value")
        self.call("Setenv", key="WIRE")
        answer = self.call("Getenv", key="WIRE")
        self.assertTrue(answer.HasField("value"))
        self.assertEqual(answer.value, "")
        self.assertFalse(self.call("Getenv", key="WIRE2").HasField("value"))
        for key in ("", "a=b", "a\0b"):
            with self.refused(FAILURE.INVALID_ARGUMENT, "setenv: "):
                self.call("Setenv", key=key, value="x")

    def test_sysctl(self):
        self.call("Sysctl", settings={"net.ipv4.ip_forward": "1", "kernel/panic": "3"})
        self.assertEqual(self.text("/proc/sys/net/ipv4/ip_forward"), "1\n")
        self.assertEqual(self.text("/proc/sys/kernel/panic"), "3\n")
        with self.refused(FAILURE.INTERNAL, "failed to set sysctl kernel.nosuch: no such file or directory"):
            self.call("Sysctl", settings={"kernel.nosuch": "1"})
        with self.refused(FAILURE.INTERNAL, "failed to set sysctl kernel.panic: invalid argument"):
            self.call("Sysctl", settings={"kernel.panic": "many"})
        for key in ("..", "../../run/x", "kernel/../../x", ""):
            with self.refused(FAILURE.INVALID_ARGUMENT, "malformed key"):
                self.call("Sysctl", settings={"kernel.panic": "9", key: "1"})
        self.assertEqual(self.text("/proc/sys/kernel/panic"), "3\n")

    def test_time(self):
        self.call("SetTime", sec=2_000_000_000, usec=5)
        self.write(f"{self.folder}/f", b"")
        self.assertIn(self.call("Stat", path=f"{self.folder}/f").stat.mtime.seconds, range(2_000_000_000, 2_000_000_060))
        self.call("SetTime", sec=int(time.time()))
        for sec, usec in ((-1, 0), (1, -1), (1, 1_000_000)):
            with self.refused(FAILURE.INVALID_ARGUMENT, "not a time"):
                self.call("SetTime", sec=sec, usec=usec)

    def test_emulator(self):
        with self.refused(FAILURE.INTERNAL, "register aarch64 with binfmt_misc: no such file"):  # flag F: opened at once
            self.call("SetupEmulator", **EMULATOR)
        self.write(EMULATOR["binary_path"], b"#!", mode=0o755)
        self.call("SetupEmulator", **EMULATOR)
        text = self.text("/proc/sys/fs/binfmt_misc/aarch64")
        self.assertIn("interpreter /run/rosetta/rosetta\n", text)
        self.assertIn("magic 7f454c460201", text)
        with self.refused(FAILURE.INTERNAL, "register aarch64 with binfmt_misc: file exists"):
            self.call("SetupEmulator", **EMULATOR)
        for part, value in (("name", "a/b"), ("type", "Q"), ("magic", "a:b"), ("flags", "Z"), ("binary_path", "x")):
            with self.refused(FAILURE.INVALID_ARGUMENT, part):
                self.call("SetupEmulator", **{**EMULATOR, part: value})

    def test_kill(self):
        processes = [self.guest.create(f"{self.name}{n}", ["sleep", "1000"], stdout=False, stderr=False)
                     for n in range(3)]
        pids = [process.start() for process in processes]
        self.assertEqual(self.call("Kill", pid=pids[0], signal=signal.SIGKILL).result, 0)
        self.assertEqual(processes[0].wait(), 137)
        for pid in (0, 1):
            with self.refused(FAILURE.INVALID_ARGUMENT, "the agent's own"):
                self.call("Kill", pid=pid, signal=signal.SIGKILL)
        with self.refused(FAILURE.INVALID_ARGUMENT, "no signal"):
            self.call("Kill", pid=pids[1], signal=99)
        answer, call = self.agent.context.Kill.with_call(pb.KillRequest(pid=4_000_000, signal=9), timeout=SECONDS)
        self.assertEqual(answer.result, -1)
        self.assertIn(("arca-error", "kill 4000000: no such process"), [tuple(pair) for pair in call.trailing_metadata()])
        self.assertEqual(self.call("Kill", pid=-1, signal=signal.SIGKILL).result, 0)
        for process in processes[1:]:
            self.assertEqual(process.wait(), 137)
        for process in processes:
            process.delete()

    def test_network(self):
        self.call("IpLinkSet", interface="lo", up=True)
        self.call("IpAddrAdd", interface="eth0", ipv4Address="192.0.2.5/24", ipv6Address="2001:db8::5/64")
        self.call("IpLinkSet", interface="eth0", up=True, mtu=1400)
        self.assertEqual(self.text("/sys/class/net/eth0/mtu"), "1400\n")
        self.assertEqual(int(self.text("/sys/class/net/eth0/flags"), 16) & 1, 1)
        self.assertIn("20010db8000000000000000000000005 02 40 00 82     eth0", self.text("/proc/1/net/if_inet6"))
        self.call("IpRouteAddLink", interface="eth0", dstIpv4Addr="198.51.100.1/32", srcIpv4Addr="192.0.2.5")
        self.call("IpRouteAddDefault", interface="eth0", ipv4Gateway="198.51.100.1", ipv6Gateway="2001:db8::1")
        routes = [line.split()[:8] for line in self.text("/proc/1/net/route").splitlines()]
        self.assertIn(["eth0", "016433C6", "00000000", "0005", "0", "0", "0", "FFFFFFFF"], routes)
        self.assertIn(["eth0", "00000000", "016433C6", "0003", "0", "0", "0", "00000000"], routes)
        self.assertRegex(self.text("/proc/1/net/ipv6_route"),
                         r"(?m)^0{32} 00 0{32} 00 20010db80{23}1 .* eth0$")
        for rpc, code, text, fields in (
                ("IpAddrAdd", FAILURE.INTERNAL, "file exists", {"interface": "eth0", "ipv4Address": "192.0.2.5/24"}),
                ("IpAddrAdd", FAILURE.INTERNAL, "no such device", {"interface": "eth7", "ipv4Address": "192.0.2.5/24"}),
                ("IpAddrAdd", FAILURE.INVALID_ARGUMENT, "IPv4", {"interface": "eth0", "ipv4Address": "192.0.2.5"}),
                ("IpLinkSet", FAILURE.INTERNAL, "mtu less than", {"interface": "eth0", "up": True, "mtu": 1}),
                ("IpLinkSet", FAILURE.INVALID_ARGUMENT, "interface name", {"interface": "../eth0", "up": True}),
                ("IpRouteAddLink", FAILURE.INVALID_ARGUMENT, "neither", {"interface": "eth0"}),
                ("IpRouteAddDefault", FAILURE.INTERNAL, "file exists",
                 {"interface": "eth0", "ipv4Gateway": "198.51.100.1"}),
                ("IpRouteAddDefault", FAILURE.INVALID_ARGUMENT, "IPv6", {"interface": "eth0", "ipv6Gateway": "x"})):
            with self.subTest(rpc=rpc, text=text):
                text = "no destination" if text == "neither" else text
                with self.refused(code, text):
                    self.call(rpc, **fields)

    def test_resolver_files(self):
        rootfs = f"/run/container/{self.name}/rootfs"
        self.mounted("ext4", "/dev/vda", rootfs)
        self.call("ConfigureDns", location=rootfs, nameservers=["1.1.1.1", "fd00::1"], domain="a.test",
                  searchDomains=["a.test", "b.test"], options=["ndots:2"])
        self.assertEqual(self.text(f"{rootfs}/etc/resolv.conf"), "nameserver 1.1.1.1\nnameserver fd00::1\n"
                         "domain a.test\nsearch a.test b.test\noptions ndots:2\n")
        entry = pb.ConfigureHostsRequest.HostsEntry
        self.call("ConfigureHosts", location=rootfs, comment="made", entries=[
            entry(ipAddress="127.0.0.1", hostnames=["localhost"]),
            entry(ipAddress="::1", hostnames=["localhost", "ip6-localhost"], comment="six")])
        self.assertEqual(self.text(f"{rootfs}/etc/hosts"),
                         "# made\n127.0.0.1 localhost\n::1 localhost ip6-localhost # six \n")
        with self.refused(FAILURE.INVALID_ARGUMENT, "malformed nameserver"):
            self.call("ConfigureDns", location=rootfs, nameservers=["1.1.1.1\noptions x"])
        with self.refused(FAILURE.INVALID_ARGUMENT, "malformed host name"):
            self.call("ConfigureHosts", location=rootfs, entries=[entry(ipAddress="::1", hostnames=["a b"])])
        with self.refused(FAILURE.INTERNAL, "/nosuch/etc/resolv.conf: "):
            self.call("ConfigureDns", location=f"{rootfs}/nosuch", nameservers=["1.1.1.1"])
        self.call("Mount", destination=rootfs, options=["remount", "ro"])
        with self.refused(FAILURE.INTERNAL, "read-only file system"):
            self.call("ConfigureHosts", location=rootfs)

    def test_statistics(self):
        own = self.guest.create(f"{self.name}-net", ["sleep", "1000"], stdout=False, stderr=False,
                                namespaces=("pid", "mount", "network"))
        shared = self.guest.create(f"{self.name}-vm", ["sleep", "1000"], stdout=False, stderr=False)
        for process in (own, shared):
            process.start()
            self.addCleanup(process.delete)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill, signal.SIGKILL)
        answer = self.call("ContainerStatistics", container_ids=[own.container, "nosuch", shared.container, "../x"])
        self.assertEqual([one.container_id for one in answer.containers], [own.container, shared.container])
        for one in answer.containers:
            self.assertEqual(one.process.current, 1)
            self.assertEqual(one.process.limit, (1 << 64) - 1)
            self.assertGreater(one.memory.usage_bytes, 0)
            self.assertGreater(one.cpu.usage_usec, 0)
            self.assertTrue(one.HasField("block_io"))
            self.assertTrue(one.HasField("memory_events"))
        self.assertEqual([[net.interface for net in one.networks] for one in answer.containers], [[], ["eth0"]])
        everything = self.call("ContainerStatistics", categories=[pb.STAT_CATEGORY_PROCESS])
        self.assertLessEqual({own.container, shared.container}, {one.container_id for one in everything.containers})
        self.assertFalse(any(one.HasField("memory") or one.networks for one in everything.containers))
        with self.refused(FAILURE.INTERNAL, "container nosuch not found"):
            self.call("ContainerStatistics", container_ids=["nosuch"])


if __name__ == "__main__":
    unittest.main()
