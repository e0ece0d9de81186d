"""A gRPC client of the agent in a Machine: stubs generated from this checkout's .proto files when first needed.

    agent = Agent(vm)                   # a channel of its own; close() it or use `with`
    agent.context.Sync(pb.SyncRequest())
    agent.extension.Version(ext.VersionRequest())

grpcio wants an address, so each channel goes through a Unix socket whose connections are relayed to the agent's port
of the VM by two threads each.
"""

import atexit
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

import grpc

from machine import AGENT_PORT, SECONDS, TOP

PROTO = TOP / "proto"


def _generate():
    folder = tempfile.mkdtemp(prefix="arca-stubs-")
    atexit.register(shutil.rmtree, folder, True)
    plugin = shutil.which("grpc_python_plugin")
    if plugin is None or shutil.which("protoc") is None:
        raise RuntimeError("protoc and grpc_python_plugin are needed (protobuf-compiler, protobuf-compiler-grpc)")
    subprocess.run(["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_out={folder}",
                    f"--plugin=protoc-gen-grpc={plugin}", "sandbox_context.proto", "arca_extension.proto"],
                   stdin=subprocess.DEVNULL, check=True)
    sys.path.insert(0, folder)
    return folder


STUBS = _generate()  # removed at the program's end
import arca_extension_pb2 as ext            # noqa: E402  pylint: disable=wrong-import-position
import arca_extension_pb2_grpc as ext_grpc  # noqa: E402  pylint: disable=wrong-import-position
import sandbox_context_pb2 as pb            # noqa: E402  pylint: disable=wrong-import-position
import sandbox_context_pb2_grpc as pb_grpc  # noqa: E402  pylint: disable=wrong-import-position

__all__ = ["Agent", "Relay", "ext", "pb"]


def _copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Relay:
    """Listens on a Unix socket and connects each connection to `dial()`."""

    def __init__(self, dial):
        self.dial = dial
        self.folder = tempfile.mkdtemp(prefix="arca-relay-")
        self.path = os.path.join(self.folder, "s")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.streams = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = self.dial()
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self.streams += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.listener.close()
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Agent:
    """A connection to the agent of `machine` (anything with dial(port)), and its two services."""

    def __init__(self, machine, port=AGENT_PORT):
        self.relay = Relay(lambda: machine.dial(port))
        self.channel = grpc.insecure_channel(
            f"unix:{self.relay.path}", options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)])
        self.context = pb_grpc.SandboxContextStub(self.channel)
        self.extension = ext_grpc.SandboxExtensionStub(self.channel)

    def wait_ready(self, seconds=SECONDS):
        grpc.channel_ready_future(self.channel).result(seconds)
        return self

    def close(self):
        self.channel.close()
        self.relay.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
