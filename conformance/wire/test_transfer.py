#!/usr/bin/python3
"""Files, copies and proxied sockets in a real VM, among them what a hostile client or image sends. Archives are made and
read by tarfile.
"""

import contextlib
import io
import os
import socket
import tarfile
import threading
import unittest

import grpc

import system_case
from system_case import FAILURE, SECONDS, InVm, pb
from machine import read_all, read_exactly

setUpModule = system_case.prepare


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


class Hostile(InVm):
    """What no host sends. Afterwards the agent still answers: see tearDown."""

    def test_sizes(self):
        many = [f"o{number}" for number in range(100_000)]
        deep = "/run/test" + "/d" * 1900
        entry = pb.ConfigureHostsRequest.HostsEntry
        for code, rpc, fields in (
                (FAILURE.INTERNAL, "Mount", {"type": "tmpfs", "source": "x", "destination": "/run/m", "options": many}),
                (FAILURE.INVALID_ARGUMENT, "Sysctl", {"settings": {key + "/..": "1" for key in many}}),
                (FAILURE.INTERNAL, "Sysctl", {"settings": {"kernel.panic": "1" * (1 << 20)}}),
                (FAILURE.INVALID_ARGUMENT, "Stat", {"path": "/" + "a" * 3_000_000}),
                (FAILURE.INTERNAL, "Mkdir", {"path": "/run/" + "a" * 300, "all": True}),
                (FAILURE.INVALID_ARGUMENT, "SetupEmulator", {"name": "x" * 1_000_000}),
                (FAILURE.INVALID_ARGUMENT, "IpLinkSet", {"interface": "x" * 1_000_000}),
                (FAILURE.INVALID_ARGUMENT, "Setenv", {"key": "x", "value": "x" * 3_000_000}),
                (FAILURE.INVALID_ARGUMENT, "ProxyVsock", {"id": "x" * 1_000_000}),
                (FAILURE.INVALID_ARGUMENT, "ProxyVsock", {"id": "x", "guestPath": "/x", "vsock_port": 0xffffffff}),
                (FAILURE.INTERNAL, "ContainerStatistics", {"container_ids": many}),
                (FAILURE.RESOURCE_EXHAUSTED, "ConfigureDns", {"location": "/run", "nameservers": ["x" * (17 << 20)]})):
            with self.subTest(rpc=rpc), self.refused(code):
                self.call(rpc, **fields)
        self.call("Mkdir", path=deep, all=True)
        self.call("ConfigureHosts", location=self.folder,
                  entries=[entry(ipAddress="::1", hostnames=["a" * 100] * 100)] * 100)
        self.assertEqual(self.call("Stat", path=f"{self.folder}/etc/hosts").stat.size, 100 * (3 + 101 * 100 + 1))
        with self.refused(FAILURE.INVALID_ARGUMENT, "nested deeper"):
            self.copy_out("/run/test/d")

    def test_many_calls_at_once(self):
        calls = [self.later("Mkdir", path=f"{self.folder}/{n}/x", all=True) for n in range(300)]
        calls += [self.later("WriteFile", path=f"{self.folder}/f{n}", data=bytes(1 << 16),
                             flags=pb.WriteFileRequest.WriteFileFlags(create_if_missing=True)) for n in range(300)]
        for call in calls:
            call.result(SECONDS)

    def test_files_that_never_end_or_never_open(self):
        self.guest.run(self.name, ["sh", "-c", "mkfifo /tmp/pipe; mknod /tmp/zero c 1 5"])
        with self.refused(FAILURE.INVALID_ARGUMENT, "neither a file nor a folder"):
            self.copy_out("/dev/zero")
        with self.refused(FAILURE.INVALID_ARGUMENT, "neither a file nor a folder"):
            self.copy_out("/images/busybox/tmp/pipe")
        for path in ("/images/busybox/tmp/pipe", "/run"):
            with self.subTest(path=path), self.assertRaises(grpc.RpcError):
                self.write(path, b"x")
            with self.subTest(path=path), self.assertRaises(grpc.RpcError):
                self.copy_in(path, b"x")


if __name__ == "__main__":
    unittest.main()
