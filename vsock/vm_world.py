"""A VM whose only program is vsock_vm_guest, behind an arca-vsock: what vm_test.py and vm_measure.py run in.

QEMU (q35, TCG), Debian's cloud kernel, its own virtio-vsock driver. ARCA_VSOCK and ARCA_VSOCK_GUEST name the two
programs; needs qemu-system-x86, busybox-static, apt-get's package lists or a kernel in the cache (guest_kernel.py).
"""

import contextlib
import fcntl
import gzip
import json
import os
import pathlib
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "vminitd" / "image"), str(HERE.parent / "conformance" / "lib")]

import guest_kernel  # noqa: E402  (found through the line above)
from streams import dial_hybrid, listen_on  # noqa: E402

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
        return dial_hybrid(self.base, port, seconds)

    def listen(self, port, backlog=256):
        return listen_on(f"{self.base}_{port}", SECONDS, backlog)

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
             "-kernel", str(kernel.emulated), "-initrd", image,
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


def check_programs():
    """Ends the program with a sentence when something that it needs is not there."""
    missing = [what for what in (ARCA_VSOCK, GUEST, BUSYBOX, QEMU) if shutil.which(what) is None]
    if missing:
        sys.exit("not found: " + ", ".join(missing)
                 + " (packages qemu-system-x86 and busybox-static; a release build)")
