"""One VM with arca-vsock, for tests of the guest: QEMU (q35, TCG), a kernel, an initramfs or a disk as its root.

    kernel = guest_kernel.prepare(guest_kernel.CONTAINER)
    with Machine(kernel, guest_image(kernel, folder)) as vm:
        vm.wait_agent()             # or start() and dial() by hand
        stream = vm.dial(1024)      # a stream to a port of the guest
        listener = vm.listen(5000)  # what the guest dials at CID 2, port 5000; the listener's accept() gives streams
        vm.console_text()

ARCA_BIN names the folder with vminitd, vmexec and arca-vsock (default: the release build of this checkout). Needs
qemu-system-x86. Everything that a machine starts ends with stop() and with this process.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path[:0] = [str(TOP / "vminitd" / "image"), str(TOP / "conformance" / "lib")]

import guest_kernel  # noqa: E402  (found through the line above)
from streams import dial_hybrid, listen_on  # noqa: E402

BIN = pathlib.Path(os.environ.get("ARCA_BIN") or TOP / "build" / "release" / "bin")
BUILD_IMAGE = TOP / "vminitd" / "image" / "build-image"
QEMU = "qemu-system-x86_64"
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
BUSYBOX = "/bin/busybox"

AGENT_PORT = 1024
FIRST_STDIO_PORT = 0x10000000
BOOT_SECONDS = 120  # a loaded machine takes 10
SECONDS = 60        # no single exchange comes near it

# A test run that is killed leaves no VM behind. No preexec_fn: the tests have threads, of grpc for one.
DIES_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]


def missing_programs():
    """What these tests need and this machine has not, as a list of words."""
    wanted = [BIN / "vminitd", BIN / "vmexec", BIN / "arca-vsock", QEMU, BUSYBOX]
    return [str(program) for program in wanted if shutil.which(str(program)) is None]


def until(condition, what, seconds=SECONDS):
    """Waits until `condition()` is true and returns its value; `what` (text, or what makes it) names it in the error."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = what() if callable(what) else what
            raise AssertionError(f"within {seconds} s this did not happen: {what}")
        time.sleep(0.005)


def guest_image(kernel, folder, *extra, form="cpio", name="guest.img", vminitd=None, vmexec=None):
    """Builds the guest's image in `folder` and gives its path; `extra` are more arguments of build-image."""
    folder = pathlib.Path(folder)
    output = folder / name
    command = [str(BUILD_IMAGE), "--vminitd", str(vminitd or BIN / "vminitd"), "--vmexec", str(vmexec or BIN / "vmexec"),
               "--output", str(output), "--format", form, *map(str, extra)]
    with tempfile.TemporaryDirectory(dir=folder) as modules:
        if kernel.modules:
            for module in kernel.modules:
                os.symlink(module, os.path.join(modules, module.name))
            order = "".join(module.name + "\n" for module in kernel.modules)
            pathlib.Path(modules, "load-order").write_text(order, encoding="ascii")
            command += ["--modules", modules]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    return output


def static_program(folder, name, source):
    """Compiles the C text for guests; gives the path."""
    program = pathlib.Path(folder) / name
    text = program.with_suffix(".c")
    text.write_text(source, encoding="ascii")
    subprocess.run(["cc", "-O2", "-static", "-s", "-o", str(program), str(text)], check=True)
    return program


class ConsoleOnFailure:
    """For a TestCase with a `vm`: prints the end of its console after a test that failed."""

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            print(f"--- console, at the end of {self.id()}\n{self.vm.console_text()[-3000:]}", file=sys.stderr)


def busybox_rootfs(folder):
    """A root file system with busybox and its applets as links; gives its path."""
    root = pathlib.Path(folder)
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(BUSYBOX, root / "bin" / "busybox")
    (root / "bin" / "busybox").chmod(0o755)
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="ascii")
    (root / "etc" / ".keep").touch(0o755)
    (root / "etc" / "group").write_text("root:x:0:\n", encoding="ascii")
    return root


def ext4_image(tree, path, mebibytes=32):
    """An ext4 disk image with the content of the folder `tree`."""
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), "-E", "root_owner=0:0", str(path),
                    f"{mebibytes}M"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return pathlib.Path(path)


class Machine:
    """A VM that is described here and runs from start() to stop().

    initrd   the root's image when it is an initramfs; None: `append` has to say where the root is
    share    a folder of this host; the guest mounts it with virtiofs, tag "share"
    disks    paths of raw images (or (path, "ro")): /dev/vda, /dev/vdb, ... in the guest
    folder   where sockets and the console's log go; None: a folder of its own, removed by stop()
    ram      a folder of a tmpfs that the guest's memory comes from; None: a memfd
    """

    def __init__(self, kernel, initrd, memory_mib=512, cpus=1, append="", share=None, disks=(), folder=None, cid=3,
                 share_tag="share", qemu_arguments=(), ram=None):
        self.kernel, self.initrd, self.append, self.ram = kernel, initrd, append, ram
        self.memory_mib, self.cpus, self.cid = memory_mib, cpus, cid
        self.share, self.share_tag, self.disks = share, share_tag, disks
        self.qemu_arguments = list(qemu_arguments)
        self.own_folder = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="arca-vm-"))
        self.base = str(self.folder / "vsock.sock")  # of the hybrid vsock: hvsock://<base>
        self.console = self.folder / "console.log"
        self.qemu = self.vsock = self.virtiofsd = None
        self.started_at = None  # time.monotonic() just before QEMU was executed
        self.next_port = FIRST_STDIO_PORT
        self.port_lock = threading.Lock()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    # ---- its life ----

    def start(self):
        self._start_vsock()
        if self.share is not None:
            self._start_virtiofsd()
        command = self._qemu_command()
        self.started_at = time.monotonic()
        with open(self.folder / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen([*DIES_WITH_PARENT, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def stop(self):
        """Ends the VM at once, and everything around it. May be called again."""
        for process in (self.qemu, self.virtiofsd, self.vsock):
            if process is None:
                continue
            if process.poll() is None:
                process.kill()
            process.wait(SECONDS)
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def wait_off(self, seconds=SECONDS):
        """Waits until QEMU has ended by itself (the guest has powered off); gives its exit code."""
        return self.qemu.wait(seconds)

    def _start_vsock(self):
        ready, ready_inside = os.pipe()
        with open(ready, "rb") as ready_file:
            try:
                self.vsock = subprocess.Popen(
                    [*DIES_WITH_PARENT, str(BIN / "arca-vsock"), "--vhost-user", str(self.folder / "vhost-user.sock"),
                     "--base", self.base, "--cid", str(self.cid), "--log", str(self.folder / "arca-vsock.log"),
                     "--ready-fd", str(ready_inside)],
                    pass_fds=[ready_inside], stdin=subprocess.DEVNULL)
            finally:
                os.close(ready_inside)
            if ready_file.read() != b"\n":
                raise AssertionError(f"arca-vsock did not start, exit code {self.vsock.wait(SECONDS)}")

    def _start_virtiofsd(self):
        path = self.folder / "virtiofs.sock"
        with open(self.folder / "virtiofsd.log", "wb") as log:
            self.virtiofsd = subprocess.Popen([*DIES_WITH_PARENT, *self._virtiofsd_command(path)],
                                              stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(path.exists, "virtiofsd listens")

    def _virtiofsd_command(self, socket_path):
        return [VIRTIOFSD, f"--socket-path={socket_path}", "-o", f"source={self.share}", "-o", "cache=auto"]

    def _qemu_command(self):
        size = f"{self.memory_mib}M"
        memory = f"memory-backend-file,align=2M,mem-path={self.ram}" if self.ram else "memory-backend-memfd"
        # erms and fsrm make the kernel copy with `rep movsb`, which TCG does byte by byte: half the throughput.
        command = [QEMU, "-M", "q35,memory-backend=mem", "-accel", "tcg", "-cpu", "max,-erms,-fsrm", "-smp", str(self.cpus),
                   "-m", size, "-object", f"{memory},id=mem,size={size},share=on",
                   "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
                   "-chardev", f"socket,id=vsock,path={self.folder / 'vhost-user.sock'}",
                   "-device", "vhost-user-vsock-pci,chardev=vsock",
                   "-serial", f"file:{self.console}",
                   "-qmp", f"unix:{self.folder / 'qmp.sock'},server=on,wait=off",
                   "-kernel", str(self.kernel.emulated)]
        # A machine that is busy may not give QEMU a timer tick in the time that the kernel waits for one at its boot.
        append = "console=ttyS0 quiet panic=-1 no_timer_check"
        if self.initrd is not None:
            command += ["-initrd", str(self.initrd)]
        for number, disk in enumerate(self.disks):
            path, mode = disk if isinstance(disk, tuple) else (disk, "rw")
            only = "on" if mode == "ro" else "off"
            command += ["-drive", f"id=disk{number},if=none,format=raw,file={path},readonly={only}",
                        "-device", f"virtio-blk-pci,drive=disk{number}"]
        if self.share is not None:
            command += ["-chardev", f"socket,id=share,path={self.folder / 'virtiofs.sock'}",
                        "-device", f"vhost-user-fs-pci,chardev=share,tag={self.share_tag}"]
        return command + self.qemu_arguments + ["-append", f"{append} {self.append}".strip()]

    # ---- talking to it ----

    def console_text(self):
        with contextlib.suppress(FileNotFoundError):
            return self.console.read_text(encoding="utf-8", errors="replace")
        return ""

    def dial(self, port=AGENT_PORT, seconds=SECONDS):
        """A stream to a port of the guest. ConnectionResetError when nobody listens there."""
        return dial_hybrid(self.base, port, seconds)

    def listen(self, port, backlog=128):
        """Listens for the guest's connections to the host's `port`; accept() gives the stream and a name."""
        return listen_on(f"{self.base}_{port}", SECONDS, backlog)

    def new_port(self):
        """A port of the host that no one has used yet, as hosts count them for stdio."""
        with self.port_lock:
            self.next_port += 1
            return self.next_port - 1

    def wait_agent(self, seconds=BOOT_SECONDS):
        """Waits until the agent's port is open; gives the seconds from the start of QEMU."""
        def answers():
            if self.qemu.poll() is not None:
                raise AssertionError(f"QEMU ended with {self.qemu.returncode}: {self.console_text()}"
                                     + (self.folder / "qemu.log").read_text(errors="replace"))
            try:
                self.dial(AGENT_PORT, 5).close()
                return True
            except OSError:
                return False
        try:
            until(answers, "the agent's port is open", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.console_text()}") from error
        return time.monotonic() - self.started_at

    def monitor(self, *commands):
        """Sends QMP commands such as "stop", "cont", "system_powerdown"."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(SECONDS)
            monitor.connect(str(self.folder / "qmp.sock"))
            lines = monitor.makefile("rw", encoding="utf-8")
            lines.readline()
            for command in ("qmp_capabilities", *commands):
                request = command if isinstance(command, dict) else {"execute": command}
                lines.write(json.dumps(request) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        raise AssertionError(f"{command}: {answer}")


def read_all(stream):
    """Everything up to the end of a stream."""
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
