"""The frame of the wire tests: one VM for a file, containers that are gone after each test.

ARCA_BIN names the folder with the programs. Needs qemu-system-x86, busybox-static, e2fsprogs, python3-grpcio and
protoc with its gRPC plugin; a kernel in the cache or apt-get's package lists (vminitd/image/guest_kernel.py).
"""

import contextlib
import pathlib
import shutil
import sys
import tempfile
import unittest

import grpc

from host_library import SECONDS, Host, pb

import machine as vm  # host_library has made it reachable
from machine import guest_kernel

CODE = grpc.StatusCode


class Sandbox:
    """The file's VM."""

    host = None
    machine = None
    _stack = contextlib.ExitStack()

    @classmethod
    def boot(cls, disks=(), **options):
        missing = vm.missing_programs()
        if missing:
            sys.exit("not found: " + ", ".join(missing))
        try:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-wire-"))
            cls._stack.callback(shutil.rmtree, folder, True)
            kernel = guest_kernel.prepare(guest_kernel.CONTAINER)
            root = vm.busybox_rootfs(folder / "rootfs")
            for name in ("mnt", "root", "run", "var"):
                (root / name).mkdir(exist_ok=True)
            (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n",
                                                 encoding="ascii")
            (root / "etc" / "group").write_text("root:x:0:\napp:x:1000:\nwheel:x:10:app\n", encoding="ascii")
            image = vm.ext4_image(root, folder / "base.img")
            cls.machine = cls._stack.enter_context(
                vm.Machine(kernel, vm.guest_image(kernel, folder), disks=[(image, "ro"), *disks], **options))
            cls.machine.wait_agent()
            cls.host = Host(cls.machine)
            cls._stack.callback(cls.host.close)
            cls.host.prepare_vm()
        except BaseException:
            if cls.machine:
                print(cls.machine.console_text()[-4000:], file=sys.stderr)
            cls.shut_down()
            raise

    @classmethod
    def on_shut_down(cls, function, *arguments):
        cls._stack.callback(function, *arguments)

    @classmethod
    def shut_down(cls):
        cls._stack.close()


class WireCase(unittest.TestCase):
    """One claim. What it makes is removed the host library's way, and nothing may be left of it."""

    maxDiff = None
    count = 0

    def setUp(self):
        self.host = Sandbox.host
        self.containers = []
        self.shared = self.host.connect()
        self.addCleanup(self.shared.close)
        self.addCleanup(self.check_gone)

    @property
    def context(self):
        """A connection that is nobody's in particular."""
        return self.shared.context

    def new_id(self, note="c"):
        WireCase.count += 1
        return f"{note}{WireCase.count}"

    def box(self, *args, identity=None, **options):
        """A container that is not created yet."""
        box = self.host.container(identity or self.new_id(), args or ["sleep", "1000"], **options)
        self.containers.append(box)
        return box

    def running(self, *args, **options):
        box = self.box(*args, **options).create()
        box.start()
        return box

    def check_gone(self):
        for box in self.containers:
            if not box.stopped:
                errors = box.stop(everything=False)
                # A test may have deleted, unmounted or never created it.
                allowed = {CODE.NOT_FOUND, CODE.INVALID_ARGUMENT, CODE.FAILED_PRECONDITION}
                self.assertEqual([error for error in errors if error[1] not in allowed], [])
            self.assert_no_file(f"/sys/fs/cgroup/container/{box.id}")
            self.assert_no_file(f"/run/container/{box.id}/init.json")
        self.assertIsNone(Sandbox.machine.qemu.poll(), "the VM has ended: " + Sandbox.machine.console_text()[-2000:])

    def assert_no_file(self, path):
        self.assert_code(CODE.NOT_FOUND, self.context.Stat, pb.StatRequest(path=path))

    def assert_code(self, codes, call, *arguments, says="", **options):
        """The call fails with this code (or one of these) and its text has `says`; gives the text."""
        codes = codes if isinstance(codes, (tuple, set, list)) else (codes,)
        options.setdefault("timeout", SECONDS)
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **options)
        self.assertIn(caught.exception.code(), codes, caught.exception.details())
        self.assertIn(says, caught.exception.details())
        return caught.exception.details()

    def fails(self, codes, call, *arguments, says=""):
        """The same for a method of Process, which has its own deadline."""
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments)
        codes = codes if isinstance(codes, (tuple, set, list)) else (codes,)
        self.assertIn(caught.exception.code(), codes, caught.exception.details())
        self.assertIn(says, caught.exception.details())
        return caught.exception.details()


def main(boot=Sandbox.boot):
    boot()
    try:
        program = unittest.main(module="__main__", verbosity=2, exit=False)
        if not program.result.wasSuccessful():
            print("---- console of the VM ----\n" + Sandbox.machine.console_text()[-6000:], file=sys.stderr)
    finally:
        Sandbox.shut_down()
    sys.exit(0 if program.result.wasSuccessful() else 1)
