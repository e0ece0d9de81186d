#!/usr/bin/python3
"""Every call of SandboxContext that is about the sandbox and not about a process, in a real VM: what it does, seen with
other means than the call itself, and which code it fails with.

The client is Python's grpcio with stubs made from the published .proto file; archives are made and read by tarfile.
"""

import concurrent.futures
import contextlib
import io
import os
import pathlib
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import threading
import time
import unittest

import grpc

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))

import machine  # noqa: E402
from agent import Agent, ext, pb  # noqa: E402
from guest import Guest, image_arguments  # noqa: E402
from machine import SECONDS, Machine, ext4_image, guest_image, guest_kernel, read_all, read_exactly  # noqa: E402

FAILURE = grpc.StatusCode
EMULATOR = {"binary_path": "/run/rosetta/rosetta", "name": "aarch64", "type": "M", "flags": "CF",
            "magic": r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
            "mask": r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"}


class World:
    pass


def setUpModule():
    missing = machine.missing_programs() + [name for name in ("mke2fs", "protoc") if shutil.which(name) is None]
    if missing:
        raise unittest.SkipTest("not found: " + ", ".join(missing))
    World.folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-wire-"))
    unittest.addModuleCleanup(shutil.rmtree, World.folder)
    World.kernel = guest_kernel.prepare((*guest_kernel.CONTAINER, "binfmt_misc"))
    World.image = guest_image(World.kernel, World.folder, *image_arguments())
    tree = World.folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "hello").write_text("from the disk\n", encoding="ascii")
    (tree / "out").symlink_to("/run")
    (tree / "up").symlink_to("../../../../run")
    for name in ("first", "second", "late"):
        ext4_image(tree, World.folder / name, 64)
    World.share = World.folder / "share"
    World.share.mkdir()
    (World.share / "shared").write_text("from the share\n", encoding="ascii")


class InVm(unittest.TestCase):
    """One VM for all tests of a class: disks /dev/vda and /dev/vdb, a share, eth0, a slot for one disk more."""

    @classmethod
    def setUpClass(cls):
        cls.vm = cls.enterClassContext(Machine(
            World.kernel, World.image, share=World.share, disks=[World.folder / "first", World.folder / "second"],
            qemu_arguments=["-device", "pcie-root-port,id=plug,chassis=1",
                            "-netdev", "user,id=net0,restrict=on", "-device", "virtio-net-pci,netdev=net0,romfile="]))
        cls.vm.wait_agent()
        cls.agent = cls.enterClassContext(Agent(cls.vm)).wait_ready()
        cls.guest = Guest(cls.vm, cls.agent)
        cls.pool = cls.enterClassContext(concurrent.futures.ThreadPoolExecutor(32))

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(f"--- console, at the end of {self.id()}\n{self.vm.console_text()[-2000:]}", file=sys.stderr)

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1].removeprefix("test_")[:60]
        self.folder = f"/run/test/{self.name}"
        self.call("Mkdir", path=self.folder, all=True)

    def tearDown(self):
        self.agent.extension.Version(ext.VersionRequest(), timeout=SECONDS)  # it is still there

    # ---- calls ----

    def call(self, rpc, seconds=SECONDS, **fields):
        return getattr(self.agent.context, rpc)(getattr(pb, rpc + "Request")(**fields), timeout=seconds)

    def later(self, rpc, **fields):
        return self.pool.submit(self.call, rpc, **fields)

    @contextlib.contextmanager
    def refused(self, code, text=""):
        with self.assertRaises(grpc.RpcError) as caught:
            yield
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(text, caught.exception.details())

    def copy_out(self, path):
        """What is at `path`: the metadata, and the bytes."""
        port = self.vm.new_port()
        with self.vm.listen(port) as listener:
            answers = self.agent.context.Copy(pb.CopyRequest(direction=pb.CopyRequest.COPY_OUT, path=path,
                                                             vsock_port=port), timeout=SECONDS)
            metadata = next(answers)
            self.assertEqual(metadata.status, pb.CopyResponse.METADATA)
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(SECONDS)
                data = read_all(stream)
            self.assertEqual([answer.status for answer in answers], [pb.CopyResponse.COMPLETE])
        return metadata, data

    def copy_in(self, path, data, **fields):
        port = self.vm.new_port()
        with self.vm.listen(port) as listener:
            answers = self.agent.context.Copy(pb.CopyRequest(direction=pb.CopyRequest.COPY_IN, path=path,
                                                             vsock_port=port, **fields), timeout=SECONDS)
            sender = self.pool.submit(self.send, listener, data)
            try:
                self.assertEqual([answer.status for answer in answers], [pb.CopyResponse.COMPLETE])
            except BaseException:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # the guest may never have dialled
                raise
            finally:
                with contextlib.suppress(OSError):
                    sender.result(SECONDS)

    @staticmethod
    def send(listener, data):
        stream, _ = listener.accept()
        with stream:
            stream.settimeout(SECONDS)
            stream.sendall(data)

    def text(self, path):
        return self.copy_out(path)[1].decode()

    def write(self, path, data, mode=0, create=True, parents=True, append=False):
        flags = pb.WriteFileRequest.WriteFileFlags(create_parent_dirs=parents, append=append, create_if_missing=create)
        return self.call("WriteFile", path=path, data=data, mode=mode, flags=flags)

    def mount_of(self, path):
        """(type, options of the mount, options of the file system) of what is mounted last at `path`."""
        found = None
        for line in self.text("/proc/1/mountinfo").splitlines():
            left, right = line.split(" - ")
            if left.split()[4] == path:
                found = right.split()[0], left.split()[5].split(","), right.split()[2].split(",")
        return found

    def mounted(self, kind, source, path, *options):
        self.call("Mount", type=kind, source=source, destination=path, options=options)
        self.addCleanup(self.call, "Umount", path=path)


class Files(InVm):
    def test_mkdir(self):
        path = f"{self.folder}/a/b"
        with self.refused(FAILURE.INTERNAL, "no such file or directory"):
            self.call("Mkdir", path=path)
        self.call("Mkdir", path=path, all=True, perms=0o1770)
        self.assertEqual(self.call("Stat", path=path).stat.mode, 0o041770)
        self.call("Mkdir", path=path, all=True)
        with self.refused(FAILURE.INTERNAL, "file exists"):
            self.call("Mkdir", path=path)
        with self.refused(FAILURE.INVALID_ARGUMENT, "not absolute"):
            self.call("Mkdir", path="a")
        with self.refused(FAILURE.INVALID_ARGUMENT, "NUL"):
            self.call("Mkdir", path="/run/a\0b")

    def test_write_file(self):
        path = f"{self.folder}/dir/file"
        with self.refused(FAILURE.INTERNAL, "no such file"):
            self.write(path, b"x", create=False)
        self.write(path, b"a longer text")
        self.assertEqual(self.call("Stat", path=path).stat.mode, 0o100644)
        self.write(path, b"short")
        self.assertEqual(self.text(path), "short")
        self.write(path, b"er", append=True, create=False, parents=False)
        self.assertEqual(self.text(path), "shorter")
        big = os.urandom(3 << 20)
        self.write(path, big, mode=0o600)
        self.assertEqual(self.copy_out(path)[1], big)
        with self.refused(FAILURE.RESOURCE_EXHAUSTED):
            self.write(path, bytes(17 << 20))

    def test_stat(self):
        path = f"{self.folder}/file"
        self.write(path, b"12345")
        stat = self.call("Stat", path=path).stat
        self.assertEqual((stat.size, stat.uid, stat.gid, stat.nlink), (5, 0, 0, 1))
        self.assertGreater(stat.ino, 0)
        self.assertGreater(stat.mtime.seconds, 0)
        with self.refused(FAILURE.NOT_FOUND, f"stat: path not found '{path}x'"):
            self.call("Stat", path=path + "x")
        answer = self.call("Stat", path=path + "/x")
        self.assertIn("not a directory", answer.error)
        self.assertFalse(answer.HasField("stat"))
        self.call("Sync")

    def test_paths_stay_in_their_container(self):
        rootfs = f"/run/container/{self.name}/rootfs"
        self.mounted("ext4", "/dev/vda", rootfs)
        self.write("/run/victim", b"mine")
        for link in ("out", "up"):
            with self.refused(FAILURE.NOT_FOUND):
                self.call("Stat", path=f"{rootfs}/{link}/victim")
            with self.refused(FAILURE.NOT_FOUND):
                self.copy_out(f"{rootfs}/{link}/victim")
        for link in ("out", "up"):
            self.write(f"{rootfs}/{link}/victim", b"theirs")  # makes <rootfs>/run, the link's target as the image sees it
            self.copy_in(f"{rootfs}/{link}/victim", b"theirs too", create_parents=True)
        self.assertEqual(self.text("/run/victim"), "mine")
        self.assertEqual(self.text(f"{rootfs}/run/victim"), "theirs too")
        with self.refused(FAILURE.INVALID_ARGUMENT, ".."):
            self.call("Stat", path="/run/../etc/passwd")

    def test_copy_of_files(self):
        data = os.urandom(5 << 20)
        self.copy_in(f"{self.folder}/new/f", data, create_parents=True, mode=0o4750)
        metadata, back = self.copy_out(f"{self.folder}/new/f")
        self.assertEqual((metadata.is_archive, metadata.total_size), (False, len(data)))
        self.assertEqual(back, data)
        self.assertEqual(self.call("Stat", path=f"{self.folder}/new/f").stat.mode, 0o100750)
        with self.refused(FAILURE.NOT_FOUND, "copy: path not found"):
            self.copy_out(f"{self.folder}/nothing")
        with self.refused(FAILURE.INTERNAL, "no such file"):
            self.copy_in(f"{self.folder}/no/f", b"x")
        with self.refused(FAILURE.INVALID_ARGUMENT, "unknown direction"):
            list(self.agent.context.Copy(pb.CopyRequest(direction=5, path="/run/x"), timeout=SECONDS))
        with self.refused(FAILURE.INTERNAL, "copy: connect"):  # nobody listens there
            list(self.agent.context.Copy(pb.CopyRequest(path="/run/x", vsock_port=self.vm.new_port()), timeout=SECONDS))

    def archive(self, *members):
        """A gzipped pax archive of (name, content or None for a folder or ("link", target), mode)."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
            for name, content, mode in members:
                info = tarfile.TarInfo(name)
                info.mode, info.uid, info.gid = mode, 12, 34
                if content is None:
                    info.type = tarfile.DIRTYPE
                elif isinstance(content, tuple):
                    info.type, info.linkname = content
                else:
                    info.size = len(content)
                tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
        return out.getvalue()

    def test_copy_of_folders(self):
        big = os.urandom(2 << 20)
        self.copy_in(f"{self.folder}/tree", is_archive=True, data=self.archive(
            ("./", None, 0o755), ("sub", None, 0o700), ("sub/big", big, 0o6755), ("\u00e9t\u00e9", b"summer", 0o644),
            ("n" * 180, b"long", 0o644), ("link", (tarfile.SYMTYPE, "sub/big"), 0o777),
            ("away", (tarfile.SYMTYPE, "/etc/passwd"), 0o777), ("hard", (tarfile.LNKTYPE, "sub/big"), 0o644),
            ("fifo", (tarfile.FIFOTYPE, ""), 0o644)))
        stat = self.call("Stat", path=f"{self.folder}/tree/sub/big").stat
        self.assertEqual((stat.mode, stat.uid, stat.gid, stat.size), (0o100755, 12, 34, len(big)))
        metadata, data = self.copy_out(f"{self.folder}/tree")
        self.assertTrue(metadata.is_archive)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            self.assertEqual(tar.getmembers()[0].name, ".")
            self.assertEqual(sorted(tar.getnames()[1:]), sorted(["sub", "sub/big", "\u00e9t\u00e9", "n" * 180, "link"]))
            self.assertEqual(tar.extractfile("sub/big").read(), big)
            self.assertEqual(tar.getmember("link").linkname, "sub/big")
            self.assertEqual((tar.getmember("sub").mode, tar.getmember("sub").uid), (0o700, 12))

    def test_hostile_archives(self):
        self.write("/run/test/victim", b"mine")
        for name in ("../victim", "/run/test/victim", "a/../../victim"):
            with self.refused(FAILURE.INVALID_ARGUMENT, "archive: path"):
                self.copy_in(f"{self.folder}/t", self.archive((name, b"theirs", 0o644)), is_archive=True)
        self.copy_in(f"{self.folder}/t", is_archive=True, data=self.archive(
            ("link", (tarfile.SYMTYPE, "/run/test"), 0o777), ("link/victim", b"theirs", 0o644)))
        self.assertEqual(self.text(f"{self.folder}/t/link/victim"), "theirs")
        self.assertEqual(self.text("/run/test/victim"), "mine")
        for data in (b"", b"no archive at all", self.archive(("f", bytes(1 << 20), 0o644))[:500]):
            with self.refused(FAILURE.INVALID_ARGUMENT, "archive: "):
                self.copy_in(f"{self.folder}/t", data, is_archive=True)

    def test_a_cancelled_copy_closes_its_stream(self):
        port = self.vm.new_port()
        with self.vm.listen(port) as listener:
            answers = self.agent.context.Copy(pb.CopyRequest(path=f"{self.folder}/f", vsock_port=port), timeout=SECONDS)
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(SECONDS)
                answers.cancel()
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(stream.recv(1), b"")


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
        waiting = [self.later("Mount", type="ext4", source="/dev/vdz", destination=f"{self.folder}/{n}")
                   for n in range(8)]
        process = self.guest.create(self.name, ["sleep", "1000"], stdout=False, stderr=False)
        process.start()
        ended = self.pool.submit(process.wait)
        process.kill(signal.SIGKILL)
        self.assertEqual(ended.result(SECONDS), 137)
        process.delete()
        self.call("Stat", path="/run")
        self.assertFalse(any(future.done() for future in waiting), "too slow a machine, or not tried for 2 s")
        for future in waiting:
            with self.refused(FAILURE.INTERNAL, "no such file"):
                future.result(SECONDS)

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


class Proxies(InVm):
    """Streams from the host to the host: out of the guest's socket, which is one of the host's in it."""

    def setUp(self):
        super().setUp()
        self.path = f"/run/sockets/{self.name}.sock"
        self.port = self.vm.new_port()  # of the host, where `into` leads
        self.listener = self.enterContext(self.vm.listen(self.port))
        self.guest_port = self.vm.new_port()  # of the guest, where `out of` begins

    def proxy(self, name, action, port, **fields):
        self.call("ProxyVsock", id=f"{self.name}-{name}", vsock_port=port, guestPath=self.path, action=action, **fields)

    def both(self):
        self.proxy("into", pb.ProxyVsockRequest.INTO, self.port, guestSocketPermissions=0o660)
        self.proxy("out", pb.ProxyVsockRequest.OUT_OF, self.guest_port)

    def stop(self, name):
        self.call("StopVsockProxy", id=f"{self.name}-{name}")

    def connect(self):
        near = self.enterContext(self.vm.dial(self.guest_port))
        far, _ = self.listener.accept()
        far.settimeout(SECONDS)
        return near, self.enterContext(far)

    def test_bytes_and_half_closes_pass(self):
        self.both()
        self.assertEqual(self.call("Stat", path=self.path).stat.mode, 0o140660)
        data = os.urandom(4 << 20)
        near, far = self.connect()
        sending = threading.Thread(target=lambda: (near.sendall(data), near.shutdown(socket.SHUT_WR)))
        sending.start()
        self.assertEqual(read_all(far), data)
        sending.join()
        far.sendall(b"and back")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(near), b"and back")

    def test_duplicates_and_unknown_ones(self):
        self.both()
        with self.refused(FAILURE.INTERNAL, "exists already"):
            self.proxy("into", pb.ProxyVsockRequest.INTO, self.port)
        self.connect()  # its socket was not touched
        self.stop("into")
        with self.refused(FAILURE.INTERNAL, "not found"):
            self.stop("into")
        with self.refused(FAILURE.NOT_FOUND):
            self.call("Stat", path=self.path)
        with self.refused(FAILURE.INTERNAL, "address already in use"):
            self.proxy("agent", pb.ProxyVsockRequest.OUT_OF, 1024)

    def test_connections_outlive_their_proxies(self):
        self.both()
        near, far = self.connect()
        self.stop("into")
        self.stop("out")
        with self.assertRaises(OSError):
            self.vm.dial(self.guest_port)
        near.sendall(b"hello")
        self.assertEqual(read_exactly(far, 5), b"hello")
        far.sendall(b"world")
        self.assertEqual(read_exactly(near, 5), b"world")

    def test_nobody_there(self):
        self.proxy("out", pb.ProxyVsockRequest.OUT_OF, self.guest_port)
        with self.vm.dial(self.guest_port) as near, contextlib.suppress(ConnectionResetError):
            self.assertEqual(near.recv(1), b"")

    def test_a_reader_that_stops_stalls_only_its_own_stream(self):
        self.both()
        stalled, _ = self.connect()
        stalled.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            while True:
                stalled.sendall(bytes(1 << 16))
        near, far = self.connect()
        data = os.urandom(2 << 20)
        sending = threading.Thread(target=near.sendall, args=(data,))
        sending.start()
        self.assertEqual(read_exactly(far, len(data)), data)
        sending.join()

    def test_many_at_once(self):
        self.both()
        pairs = [self.connect() for _ in range(40)]
        for number, (near, far) in enumerate(pairs):
            near.sendall(b"%04d" % number)
            self.assertEqual(read_exactly(far, 4), b"%04d" % number)


if __name__ == "__main__":
    unittest.main()
