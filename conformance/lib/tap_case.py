"""The frame of the tests of arca-tap-forwarder: the guest is a network namespace, the host the test."""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import threading

import tap_client
from arca_test import RUNTIME, Case, environment, ours_only, until, wait_process
from leaks import read_text
from netns import Namespace, in_namespace
from tap_client import Client, Frames

PROGRAM = os.path.join(os.path.dirname(RUNTIME), "arca-tap-forwarder")
SECONDS = tap_client.SECONDS
CONTROL = 5555
TEST_TYPE = b"\x88\xb5"  # an Ethernet type for experiments: no kernel sends it by itself
BROADCAST = b"\xff" * 6
VNET_HEADER = bytes(10)  # no offload


def ethernet(payload, target=BROADCAST, source=b"\x02\x00\x00\x00\x00\x09", kind=TEST_TYPE):
    return target + source + kind + payload


def is_ours(frame):
    return frame[12:14] == TEST_TYPE


class Forwarder:
    """A running arca-tap-forwarder, and what the test has open of it."""

    def __init__(self, case, namespace, *words, folder=None, env=(), program=()):
        self.case, self.namespace = case, namespace
        self.folder = folder or case.new_folder()
        self.resolv_conf = os.path.join(case.dir, f"{os.path.basename(self.folder)}-resolv.conf")
        self.log_path = os.path.join(case.dir, f"{os.path.basename(self.folder)}.log")
        self.closers = []
        ready, ready_inside = os.pipe()
        command = [*case.enter(namespace), PROGRAM, "--listen", f"unix://{self.folder}", "--resolv-conf", self.resolv_conf,
                   *words]
        command += ["--", *program] if program else ["--ready-fd", str(ready_inside)]
        with open(self.log_path, "wb") as log, open(ready, "rb") as ready_file:
            try:
                self.process = case.spawn(command, stderr=log, pass_fds=[ready_inside], env=environment(**dict(env)))
            finally:
                os.close(ready_inside)
            if not program:
                self.said = ready_file.read()  # ends when the program closes it
        self.client = self.new_client()

    def new_client(self, layout=None):
        client = Client(os.path.join(self.folder, str(CONTROL)), layout)
        self.closers.append(client.close)
        return client

    def connect(self, port):
        """A connection to a data plane."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(SECONDS)
        stream.connect(os.path.join(self.folder, str(port)))
        frames = Frames(stream)
        self.closers.append(frames.close)
        return frames

    def log(self):
        return read_text(self.log_path)

    def logs(self, text):
        until(lambda: text in self.log(), lambda: f"{text!r} in the log:\n{self.log()}", SECONDS)

    def close(self):
        for closer in reversed(self.closers):
            closer()
        self.closers = []

    def stop(self, number=signal.SIGTERM):
        """Ends it in order: exit code 0, nothing of it left in its folder."""
        self.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = wait_process(self.process, SECONDS)
        self.case.assertEqual(code, 0, self.log())
        self.case.assertEqual([name for name in os.listdir(self.folder)] if os.path.isdir(self.folder) else [], [])


@ours_only("it is a program of this project")
class TapCase(Case):
    def setUp(self):
        super().setUp()
        self.folders = 0
        self.guest = self.new_namespace()

    def new_folder(self):
        self.folders += 1
        path = os.path.join(self.dir, f"f{self.folders}")
        os.mkdir(path)
        return path

    def new_namespace(self):
        """Path of a network namespace that lives until the end of the test."""
        namespace = Namespace()
        self.addCleanup(namespace.close)
        return namespace.path

    @staticmethod
    def enter(namespace):
        return [shutil.which("nsenter"), f"--net={namespace}", "--"]

    def run_in(self, namespace, *words, code=0):
        result = self.call([*self.enter(namespace), *words], seconds=SECONDS)
        self.assertEqual(result.code, code, result)
        return result.out

    def ip(self, *words):
        """What iproute2 tells of the guest, as JSON."""
        return json.loads(self.run_in(self.guest, "ip", "-json", *words) or "[]")

    def devices(self):
        return {link["ifname"] for link in self.ip("link", "show")} - {"lo"}

    def addresses(self, device):
        """Those that somebody has set."""
        infos = self.ip("addr", "show", "dev", device)[0]["addr_info"]
        return {f"{one['local']}/{one['prefixlen']}" for one in infos if one["scope"] == "global"}

    def forwarder(self, *words, **options):
        forwarder = Forwarder(self, options.pop("namespace", self.guest), *words, **options)
        self.addCleanup(forwarder.stop)
        self.assertEqual(forwarder.said, b"\n", forwarder.log())
        return forwarder

    def attached(self, forwarder, **fields):
        answer = forwarder.client.attach(**fields)
        self.assertEqual((answer["success"], answer["error"]), (1, ""))
        return answer

    def refused(self, answer, says):
        self.assertEqual(answer["success"], 0)
        self.assertIn(says, answer["error"])
        self.assertEqual(len(answer["error"].splitlines()), 1)

    def packets(self, device, namespace=None):
        """A packet socket on an interface of the guest: gives and takes whole frames of the type of the tests."""
        def make():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(struct.unpack(">H", TEST_TYPE)[0]))
            made.bind((device, struct.unpack(">H", TEST_TYPE)[0]))
            return made
        made = in_namespace(namespace or self.guest, make)
        made.settimeout(SECONDS)
        self.addCleanup(made.close)
        return made


class Flood:
    """Keeps a network busy in both directions: a thread sends from the guest's side, one from the host's."""

    def __init__(self, case, forwarder, number):
        self.packets, self.frames = case.packets(f"eth{number}"), forwarder.connect(6000 + number)
        self.over, self.received, self.sent = False, 0, 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.writer = threading.Thread(target=self._write, daemon=True)
        self.guest = threading.Thread(target=self._guest, daemon=True)
        for thread in (self.reader, self.writer, self.guest):
            thread.start()
        until(lambda: self.received > 100 and self.sent > 100, "the network is busy", SECONDS)

    def _read(self):
        with contextlib.suppress(OSError, AssertionError):
            while self.frames.next() is not None:
                self.received += 1

    def _write(self):
        with contextlib.suppress(OSError):
            while not self.over:
                self.frames.send(*[ethernet(bytes(1400))] * 16)
                self.sent += 16

    def _guest(self):
        with contextlib.suppress(OSError):
            while not self.over:
                self.packets.send(ethernet(bytes(1400)))

    def stop(self):
        self.over = True
        for thread in (self.writer, self.guest):
            thread.join(SECONDS)
        self.frames.close()
        self.reader.join(SECONDS)
