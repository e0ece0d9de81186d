#!/usr/bin/env python3
"""arca-vsock with a real guest kernel: QEMU (q35, TCG), Debian's cloud kernel, its own virtio-vsock driver.

Boots a VM whose only program is vsock_vm_guest and checks, from the host's side, what a stream must hold: bytes both
ways, half-close, many streams, a reader that stops, refusals, deaths. ARCA_VSOCK and ARCA_VSOCK_GUEST name the two
programs; needs qemu-system-x86, busybox-static, apt-get's package lists or a kernel in the cache (guest_kernel.py).
With --measure it prints throughput and latency instead.
"""

import concurrent.futures
import contextlib
import fcntl
import gzip
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

import guest_kernel

HERE = pathlib.Path(__file__).resolve().parent
BUILT = HERE.parent / "build" / "release" / "bin"
ARCA_VSOCK = os.environ.get("ARCA_VSOCK") or str(BUILT / "arca-vsock")
GUEST = os.environ.get("ARCA_VSOCK_GUEST") or str(BUILT / "vsock_vm_guest")
BUSYBOX = "/bin/busybox"
QEMU = "qemu-system-x86_64"

ECHO, SINK, SOURCE, STORE, CONTROL, STALL = range(1024, 1030)
BOOT_SECONDS = 120  # a loaded machine takes 10
SECONDS = 60        # no single exchange comes near it
MIB = 1 << 20

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    /bin/busybox insmod "$module" || echo "cannot load $module"
done
exec /vm_guest
"""


def cpio_archive(entries):
    """An initramfs: (name, mode, content) in the `newc` format."""
    out = bytearray()

    def add(name, mode, data):
        fields = [add.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out.extend(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))
        add.inode += 1

    add.inode = 1
    for name, mode, data in entries:
        add(name, mode, data)
    add("TRAILER!!!", 0, b"")
    return bytes(out)


def initramfs(kernel):
    directory, program = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755
    entries = [(name, directory, b"") for name in ("bin", "dev", "modules", "proc", "sys")]
    entries += [
        ("bin/busybox", program, pathlib.Path(BUSYBOX).read_bytes()),
        ("init", program, INIT.encode()),
        ("vm_guest", program, pathlib.Path(GUEST).read_bytes()),
    ]
    entries += [("modules/" + path.name, stat.S_IFREG | 0o644, path.read_bytes()) for path in kernel.modules]
    return gzip.compress(cpio_archive(entries), 1)


def until(condition, what, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s this did not happen: {what}")
        time.sleep(0.01)


def until_full(stream):
    """Waits until the buffers on the way to us are full: until what is queued in the last stays the same for a while."""
    last, since = -1, time.monotonic()

    def full():
        nonlocal last, since
        queued = struct.unpack("i", fcntl.ioctl(stream, termios.FIONREAD, bytes(4)))[0]
        if queued != last:
            last, since = queued, time.monotonic()
        return last > 0 and time.monotonic() - since > 0.25
    until(full, "the stream's buffers are full")


class Backend:
    """An arca-vsock with its sockets in a folder of its own."""

    def __init__(self, folder, *flags, cid=3):
        self.folder = str(folder)
        self.base = os.path.join(self.folder, "vsock.sock")
        self.vhost_user = os.path.join(self.folder, "vhost-user.sock")
        self.log = os.path.join(self.folder, "arca-vsock.log")
        ready, ready_inside = os.pipe()
        with open(ready, "rb") as ready_file:
            self.process = subprocess.Popen(
                [ARCA_VSOCK, "--vhost-user", self.vhost_user, "--base", self.base, "--cid", str(cid),
                 "--log", self.log, "--ready-fd", str(ready_inside), *flags],
                pass_fds=[ready_inside], stdin=subprocess.DEVNULL)
            os.close(ready_inside)
            if ready_file.read() != b"\n":
                raise AssertionError(f"arca-vsock did not start, exit code {self.process.wait(SECONDS)}: "
                                     + self.log_text())

    def log_text(self):
        with contextlib.suppress(FileNotFoundError):
            return pathlib.Path(self.log).read_text(encoding="utf-8")
        return ""

    def dial(self, port, seconds=SECONDS):
        """A stream to a port of the guest."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(seconds)
        try:
            stream.connect(self.base)
            stream.sendall(b"CONNECT %d\n" % port)
            line = b""
            while not line.endswith(b"\n"):
                byte = stream.recv(1)
                if not byte:
                    raise ConnectionResetError(f"port {port}: closed after {line!r}")
                line += byte
            word, number = line.split()
            if word != b"OK" or int(number) < 0:
                raise AssertionError(f"handshake: {line!r}")
        except BaseException:
            stream.close()
            raise
        return stream

    def listen(self, port, backlog=256):
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(SECONDS)
        path = f"{self.base}_{port}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(backlog)
        return listener

    def command(self, line):
        """Has the guest carry out a command; gives its answer."""
        with self.dial(CONTROL) as stream:
            stream.sendall(line.encode() + b"\n")
            return read_all(stream).decode().rstrip("\n")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)


class Vm:
    def __init__(self, folder, backend, kernel, image):
        self.console = os.path.join(str(folder), "console.log")
        self.monitor_path = os.path.join(str(folder), "qmp.sock")
        self.backend = backend
        self.process = subprocess.Popen(
            ["nice", "-n", "5", QEMU, "-M", "q35,memory-backend=mem", "-accel", "tcg", "-cpu", "max", "-smp", "1",
             "-m", "512",
             "-object", "memory-backend-memfd,id=mem,size=512M,share=on",
             "-chardev", f"socket,id=vsock,path={backend.vhost_user}", "-device", "vhost-user-vsock-pci,chardev=vsock",
             "-nodefaults", "-no-user-config", "-nographic", "-serial", f"file:{self.console}",
             "-qmp", f"unix:{self.monitor_path},server=on,wait=off",
             "-kernel", str(kernel.image), "-initrd", image,
             "-append", "console=ttyS0 quiet panic=-1 rdinit=/init"],
            stdin=subprocess.DEVNULL)

    def wait_ready(self):
        """Waits until the guest answers on its echo port."""
        def answers():
            if self.process.poll() is not None:
                raise AssertionError(f"QEMU ended with {self.process.returncode}: {self.console_text()}")
            try:
                self.backend.dial(ECHO, 5).close()
                return True
            except OSError:
                return False
        until(answers, "the guest answers", BOOT_SECONDS)

    def console_text(self):
        with contextlib.suppress(FileNotFoundError):
            return pathlib.Path(self.console).read_text(encoding="utf-8", errors="replace")
        return ""

    def monitor(self, *commands):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(SECONDS)
            monitor.connect(self.monitor_path)
            lines = monitor.makefile("rw", encoding="utf-8")
            lines.readline()
            for command in ("qmp_capabilities", *commands):
                lines.write(json.dumps({"execute": command}) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        raise AssertionError(f"{command}: {answer}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)


def read_all(stream):
    parts = []
    while part := stream.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)


def read_exactly(stream, count):
    parts = []
    while count > 0:
        part = stream.recv(min(count, 1 << 18))
        if not part:
            raise AssertionError(f"the stream ended {count} bytes early")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def ended(stream):
    """True when the other side has closed, whichever way the kernel tells."""
    try:
        return stream.recv(1) == b""
    except ConnectionResetError:
        return True


class World:
    """A folder, a backend and a VM, and their end."""

    kernel = None
    image = None

    def __init__(self, *flags):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-vsock-"))
        if World.kernel is None:
            World.kernel = guest_kernel.prepare()
            World.image = initramfs(World.kernel)
        (self.folder / "initramfs").write_bytes(World.image)
        self.vms = []
        self.backend = Backend(self.folder, *flags)

    def boot(self):
        vm = Vm(self.folder, self.backend, World.kernel, str(self.folder / "initramfs"))
        self.vms.append(vm)
        vm.wait_ready()
        return vm

    def close(self):
        for vm in self.vms:
            vm.stop()
        self.backend.stop()
        shutil.rmtree(self.folder)


class WithOneVm(unittest.TestCase):
    """Tests that share a VM and leave it as it was."""

    @classmethod
    def setUpClass(cls):
        cls.world = World("--debug")
        cls.addClassCleanup(cls.world.close)
        cls.vm = cls.world.boot()
        cls.backend = cls.world.backend

    def setUp(self):
        self.descriptors = self.backend_descriptors()

    def tearDown(self):
        until(lambda: self.backend_descriptors() <= self.descriptors,
              lambda: "arca-vsock has no more descriptors than before the test", 20)

    def backend_descriptors(self):
        return len(os.listdir(f"/proc/{self.backend.process.pid}/fd"))

    def test_host_to_guest(self):
        with self.backend.dial(ECHO) as stream:
            stream.sendall(b"hello")
            self.assertEqual(read_exactly(stream, 5), b"hello")

    def test_what_follows_the_connect_line_at_once_belongs_to_the_stream(self):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(SECONDS)
            stream.connect(self.backend.base)
            stream.sendall(b"CONNECT %d\nearly" % ECHO)
            stream.shutdown(socket.SHUT_WR)
            answer = read_all(stream)
        self.assertRegex(answer, rb"\AOK [0-9]+\nearly\Z")

    def test_guest_to_host(self):
        with self.backend.listen(5000) as listener, concurrent.futures.ThreadPoolExecutor() as pool:
            asked = pool.submit(self.backend.command, "half 5000")
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                # Half-close by the guest: its end arrives, and the other direction still works.
                self.assertEqual(read_all(connection), b"from the guest")
                connection.sendall(b"after your end")
            self.assertEqual(asked.result(SECONDS), "got after your end")

    def test_half_close_by_the_host(self):
        with self.backend.dial(SINK) as stream:
            stream.sendall(b"x" * 12345)
            stream.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(stream), b"12345\n")

    def test_a_hundred_mebibytes_come_back_identical(self):
        data = os.urandom(MIB) + b"".join(os.urandom(1 << 16) * 16 for _ in range(99))
        with self.backend.dial(STORE) as stream:
            stream.sendall(b"store\n")
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(stream), b"%d\n" % len(data))
        with self.backend.dial(STORE) as stream:
            stream.sendall(b"fetch\n")
            self.assertTrue(read_all(stream) == data, "what the guest kept differs from what was sent")

    def test_a_hundred_mebibytes_both_ways_at_once(self):
        data = os.urandom(MIB) * 100
        with self.backend.dial(ECHO) as stream, concurrent.futures.ThreadPoolExecutor() as pool:
            def send():
                stream.sendall(data)
                stream.shutdown(socket.SHUT_WR)
            sent = pool.submit(send)
            self.assertTrue(read_all(stream) == data)
            sent.result(SECONDS)

    def test_many_streams_at_once_from_the_host(self):
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(self.backend.dial(ECHO)) for _ in range(200)]
            for number, stream in enumerate(streams):
                stream.sendall(b"%d;" % number * 1000)
            for number, stream in enumerate(streams):
                expected = b"%d;" % number * 1000
                self.assertEqual(read_exactly(stream, len(expected)), expected)

    def test_many_streams_at_once_from_the_guest(self):
        def serve(connection):
            with connection:
                connection.settimeout(SECONDS)
                while data := connection.recv(4096):
                    connection.sendall(data)
        with self.backend.listen(5001) as listener, concurrent.futures.ThreadPoolExecutor(130) as pool:
            asked = pool.submit(self.backend.command, "many 5001 100")
            for _ in range(100):
                pool.submit(serve, listener.accept()[0])
            self.assertEqual(asked.result(SECONDS), "good 100")

    def test_parallel_transfers_are_not_mixed_up(self):
        def transfer(number):
            data = bytes([number]) * (2 * MIB)
            with self.backend.dial(ECHO) as stream:
                sender = threading.Thread(target=stream.sendall, args=(data,))
                sender.start()
                good = read_exactly(stream, len(data)) == data
                sender.join()
            return good
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            self.assertEqual(list(pool.map(transfer, range(64))), [True] * 64)

    def test_a_host_that_stops_reading_stalls_only_its_own_stream(self):
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stalled = stack.enter_context(self.backend.dial(SOURCE))
                stalled.sendall(b"%d\n" % (64 * MIB))
            until_full(stalled)
            start = time.monotonic()
            with self.backend.dial(SOURCE) as stream:
                stream.sendall(b"%d\n" % (8 * MIB))
                self.assertEqual(len(read_all(stream)), 8 * MIB)
            self.assertLess(time.monotonic() - start, 20)
            # A stalled one is not lost: it goes on when its reader does.
            self.assertEqual(len(read_all(stalled)), 64 * MIB)

    def test_a_guest_that_stops_reading_stalls_only_its_own_stream(self):
        with contextlib.ExitStack() as stack:
            sent = 0
            for _ in range(8):
                stalled = stack.enter_context(self.backend.dial(STALL))
                stalled.setblocking(False)
                sent = 0
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sent += stalled.send(b"z" * 65536)
            with self.backend.dial(SINK) as stream:
                stream.sendall(b"x" * (8 * MIB))
                stream.shutdown(socket.SHUT_WR)
                self.assertEqual(read_all(stream), b"%d\n" % (8 * MIB))
            self.assertEqual(self.backend.command("release"), "ok")
            stalled.settimeout(SECONDS)
            stalled.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(stalled), b"%d\n" % sent)

    def test_a_port_nobody_serves_is_refused_on_either_side(self):
        self.assertEqual(self.backend.command("connect 2 6001"), "error ECONNRESET")
        self.assertEqual(self.backend.command("connect 7 1024"), "error ECONNRESET")
        with self.assertRaises(ConnectionResetError):
            self.backend.dial(6002)

    def test_a_socket_file_without_a_listener_is_refused(self):
        self.backend.listen(6003).close()
        self.assertEqual(self.backend.command("connect 2 6003"), "error ECONNRESET")

    def test_seqpacket_is_refused(self):
        with self.backend.listen(6004):
            self.assertRegex(self.backend.command("seqpacket 6004"), "^error ")

    def test_a_bad_line_closes_the_connection(self):
        for line in (b"CONNECT\n", b"CONNECT x\n", b"GET / HTTP/1.1\r\n", b"CONNECT 4294967295\n", b"C" * 100):
            with self.subTest(line=line), socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(SECONDS)
                stream.connect(self.backend.base)
                stream.sendall(line)
                self.assertTrue(ended(stream))

    def test_a_host_program_that_dies_ends_the_guests_stream(self):
        with self.backend.listen(5002) as listener, concurrent.futures.ThreadPoolExecutor() as pool:
            asked = pool.submit(self.backend.command, "hold 5002")
            listener.accept()[0].close()
            self.assertEqual(asked.result(SECONDS), "end")

    def test_what_the_guest_sent_before_it_closed_arrives(self):
        with self.backend.listen(5003) as listener, concurrent.futures.ThreadPoolExecutor() as pool:
            asked = pool.submit(self.backend.command, "send 5003 300000")
            connection, _ = listener.accept()
            with connection:
                self.assertEqual(asked.result(SECONDS), "ok")
                until_full(connection)  # the guest has closed long before the first byte is read
                self.assertEqual(len(read_all(connection)), 300000)

    def test_the_folder_and_the_process_are_closed_to_others(self):
        status = pathlib.Path(f"/proc/{self.backend.process.pid}/status").read_text(encoding="ascii")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        self.assertEqual(fields["Seccomp"], "2")
        self.assertEqual(fields["NoNewPrivs"], "1")
        for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
            self.assertEqual(int(fields[name], 16), 0, name)
        self.assertEqual(stat.S_IMODE(os.stat(self.backend.base).st_mode), 0o600)
        self.assertLess(int(fields["VmRSS"].split()[0]), 64 << 10)

    def test_paused_vm_keeps_its_streams(self):
        with self.backend.dial(ECHO) as stream:
            stream.sendall(b"before")
            self.assertEqual(read_exactly(stream, 6), b"before")
            self.vm.monitor("stop")
            stream.sendall(b"meanwhile")
            with self.assertRaises(OSError):
                self.backend.dial(ECHO, 5)
            self.vm.monitor("cont")
            self.assertEqual(read_exactly(stream, 9), b"meanwhile")


class WithVmsOfTheirOwn(unittest.TestCase):
    def new_world(self, *flags):
        world = World(*flags)
        self.addCleanup(world.close)
        return world

    def test_reset_of_the_guest_ends_its_streams_and_new_ones_work(self):
        world = self.new_world()
        vm = world.boot()
        with world.backend.dial(ECHO) as stream:
            vm.monitor("system_reset")
            stream.settimeout(BOOT_SECONDS)
            self.assertTrue(ended(stream))
        vm.wait_ready()
        with world.backend.dial(ECHO) as stream:
            stream.sendall(b"again")
            self.assertEqual(read_exactly(stream, 5), b"again")

    def test_killed_vmm_ends_streams_and_arca_vsock(self):
        world = self.new_world()
        vm = world.boot()
        with world.backend.dial(ECHO) as stream, world.backend.dial(STALL) as other:
            vm.process.send_signal(signal.SIGKILL)
            self.assertTrue(ended(stream))
            self.assertTrue(ended(other))
        self.assertEqual(world.backend.process.wait(5), 0)

    def test_killed_arca_vsock_ends_streams(self):
        world = self.new_world()
        world.boot()
        with world.backend.dial(ECHO) as stream:
            world.backend.process.send_signal(signal.SIGKILL)
            self.assertTrue(ended(stream))
        world.backend.process.wait(SECONDS)  # its listener may be the last that the kernel closes
        with self.assertRaises(ConnectionRefusedError):
            world.backend.dial(ECHO)

    def test_keep_serves_one_vm_after_the_other(self):
        world = self.new_world("--keep", "--user", "65534:65534")
        # The listener is root's and closed to others, and still reached by the user that serves.
        with world.backend.listen(5000) as listener:
            os.chmod(f"{world.backend.base}_5000", 0o600)
            for _ in range(2):
                vm = world.boot()
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    asked = pool.submit(world.backend.command, "connect 2 5000")
                    listener.accept()[0].close()
                    self.assertEqual(asked.result(SECONDS), "ok")
                with world.backend.dial(ECHO) as stream:
                    vm.process.send_signal(signal.SIGKILL)
                    self.assertTrue(ended(stream))
                vm.stop()
            status = pathlib.Path(f"/proc/{world.backend.process.pid}/status").read_text(encoding="ascii")
            self.assertIn("Uid:\t65534\t65534\t65534\t65534", status)
            self.assertIsNone(world.backend.process.poll())

    def test_last_words_before_power_off_arrive(self):
        world = self.new_world()
        vm = world.boot()
        with world.backend.listen(5000) as listener:
            self.assertEqual(world.backend.command("send 5000 100000"), "ok")
            with contextlib.suppress(OSError):
                world.backend.command("poweroff")
            self.assertEqual(vm.process.wait(SECONDS), 0)
            connection, _ = listener.accept()
            with connection:
                self.assertEqual(len(read_all(connection)), 100000)
        self.assertEqual(world.backend.process.wait(5), 0)


def measure():
    """Throughput and latency of one VM, and what they cost in CPU time."""
    world = World()
    try:
        start = time.monotonic()
        world.boot()
        print(f"boot to first stream      {time.monotonic() - start:8.2f} s")
        backend = world.backend

        def cpu_seconds():
            status = pathlib.Path(f"/proc/{backend.process.pid}/stat").read_text(encoding="ascii")
            fields = status.rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        def report(name, size, action):
            best = None
            for _ in range(3):
                used, start = cpu_seconds(), time.monotonic()
                action()
                figures = (time.monotonic() - start, cpu_seconds() - used)
                best = min(best or figures, figures)
            print(f"{name:25} {size / MIB / best[0]:8.1f} MiB/s   "
                  f"arca-vsock {best[1] / size * (1 << 30):6.2f} s of CPU per GiB")

        size = 256 * MIB
        block = bytes(MIB)

        def to_guest():
            with backend.dial(SINK) as stream:
                for _ in range(size // MIB):
                    stream.sendall(block)
                stream.shutdown(socket.SHUT_WR)
                assert read_all(stream) == b"%d\n" % size

        def from_guest():
            buffer = bytearray(MIB)
            got = 0
            with backend.dial(SOURCE) as stream:
                stream.sendall(b"%d\n" % size)
                while count := stream.recv_into(buffer):
                    got += count
            assert got == size

        report("host to guest, 256 MiB", size, to_guest)
        report("guest to host, 256 MiB", size, from_guest)
        with backend.dial(ECHO) as stream:
            times = []
            for _ in range(3000):
                start = time.perf_counter()
                stream.sendall(b"p" * 64)
                read_exactly(stream, 64)
                times.append(time.perf_counter() - start)
        times.sort()
        print(f"64-byte round trip        {times[len(times) // 2] * 1e6:8.0f} us median, "
              f"{times[len(times) * 99 // 100] * 1e6:.0f} us 99th percentile")
        times = []
        for _ in range(300):
            start = time.perf_counter()
            backend.dial(ECHO).close()
            times.append(time.perf_counter() - start)
        times.sort()
        print(f"dial                      {times[len(times) // 2] * 1e6:8.0f} us median")
    finally:
        world.close()


def main():
    missing = [what for what in (ARCA_VSOCK, GUEST, BUSYBOX, QEMU) if shutil.which(what) is None]
    if missing:
        sys.exit("vm_test: not found: " + ", ".join(missing)
                 + " (packages qemu-system-x86 and busybox-static; a release build)")
    if sys.argv[1:] == ["--measure"]:
        measure()
    else:
        unittest.main(verbosity=2)


if __name__ == "__main__":
    main()
