"""The frame of the tests of the system calls: a VM with disks, a share and a link for a class, and a client of it.

The client is Python's grpcio with stubs made from the published .proto file.
"""

import concurrent.futures
import contextlib
import pathlib
import shutil
import socket
import sys
import tempfile
import unittest

import grpc

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))

import machine  # noqa: E402
from agent import Agent, ext, pb  # noqa: E402
from guest import Guest, image_arguments  # noqa: E402
from machine import SECONDS, Machine, ext4_image, guest_image, guest_kernel, read_all  # noqa: E402

FAILURE = grpc.StatusCode


class World:
    pass


def prepare():
    """For setUpModule()."""
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


class InVm(machine.ConsoleOnFailure, unittest.TestCase):
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
