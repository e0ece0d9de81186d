#!/usr/bin/python3
"""The players themselves, without a VM: the Apple-like agent takes the host library's sequences, the hostile ones are
what they say they are."""

import copy
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc

import hostile_guest
from apple_guest import REQUIRED, ENTRY, AppleGuest, decode, DecodingError
from host_library import MOUNTS, SECONDS, Host, changed, container_spec, encode, pb, process_spec

from agent import Agent, ext

CODE = grpc.StatusCode
HERE = pathlib.Path(__file__).resolve().parent
BUSYBOX = "/bin/busybox"


class FolderMachine:
    """The host's end of unix://DIR, in the shape of a Machine."""

    def __init__(self, folder):
        self.folder, self.next_port, self.lock = folder, 0x10000000, threading.Lock()

    @property
    def address(self):
        return f"unix://{self.folder}"

    def path(self, port):
        return os.path.join(self.folder, str(port))

    def dial(self, port, seconds=SECONDS):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(seconds)
        try:
            stream.connect(self.path(port))
        except BaseException:
            stream.close()
            raise
        return stream

    def listen(self, port, backlog=8):
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(SECONDS)
        listener.bind(self.path(port))
        listener.listen(backlog)
        return listener

    def new_port(self):
        with self.lock:
            self.next_port += 1
            return self.next_port - 1


class HybridMachine(FolderMachine):
    """The host's end of hvsock://PATH."""

    @property
    def address(self):
        return f"hvsock://{self.folder}/vsock.sock"

    def path(self, port):
        return f"{self.folder}/vsock.sock_{port}"

    def dial(self, port, seconds=SECONDS):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(seconds)
        try:
            stream.connect(f"{self.folder}/vsock.sock")
            stream.sendall(b"CONNECT %d\n" % port)
            line = b""
            while not line.endswith(b"\n"):
                byte = stream.recv(1)
                if not byte or len(line) > 32:
                    raise ConnectionResetError(f"handshake: {line!r}")
                line += byte
            if not line.startswith(b"OK "):
                raise ConnectionResetError(f"handshake: {line!r}")
        except BaseException:
            stream.close()
            raise
        return stream


class PlayerCase(unittest.TestCase):
    machine_kind = FolderMachine

    def setUp(self):
        self.new_machine()

    def new_machine(self):
        folder = tempfile.mkdtemp(prefix="arca-players-")
        self.addCleanup(shutil.rmtree, folder, True)
        self.machine = self.machine_kind(folder)

    def fails(self, codes, call, *arguments):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments)
        codes = codes if isinstance(codes, tuple) else (codes,)
        self.assertIn(caught.exception.code(), codes, caught.exception.details())
        return caught.exception.details()


class AppleLike(PlayerCase):
    def setUp(self):
        super().setUp()
        self.guest = AppleGuest(self.machine.address).start()
        self.addCleanup(self.guest.close)
        self.host = Host(self.machine)
        self.addCleanup(self.host.close)

    def box(self, *args, **options):
        box = self.host.container("box", [BUSYBOX, *args], rootfs=lambda _: None, **options)
        box.spec["root"]["path"] = "/"
        self.addCleanup(box.close)
        return box

    def test_the_host_librarys_sequences(self):
        self.host.prepare_vm()
        box = self.box("sh", "-c", "echo out; echo err >&2; read word; echo $word; exit 7",
                       streams=("stdin", "stdout", "stderr")).create()
        self.assertGreater(box.start(), 1)
        box.stdout.until("out\n")
        code, text = box.run_exec("x1", BUSYBOX, "echo", "in")
        self.assertEqual((code, text), (0, b"in\n"))
        box.stdin.sendall(b"word\n")
        self.assertEqual(box.wait(), 7)
        self.assertEqual((box.stdout.all(), box.stderr.all()), (b"out\nword\n", b"err\n"))
        self.assertEqual(box.stop(), [])
        names = [name for name, _ in self.guest.agent.calls]
        for name in ("mount", "ipLinkSet", "setenv", "createProcess", "kill", "umount", "sync", "deleteProcess"):
            self.assertIn(name, names)

    def test_nothing_runs_before_start(self):
        marker = os.path.join(self.machine.folder, "ran")
        box = self.box("touch", marker).create()
        self.assertFalse(os.path.exists(marker))
        self.fails(CODE.FAILED_PRECONDITION, box.kill)
        box.start()
        self.assertEqual(box.wait(), 0)
        self.assertTrue(os.path.exists(marker))

    def test_streams_end_before_wait_and_signals_are_codes(self):
        box = self.box("sh", "-c", "echo on; sleep 1000", streams=("stdout",)).create()
        box.start()
        box.stdout.until("on")
        box.kill(0)
        box.kill(signal.SIGKILL)
        self.assertEqual(box.wait(), 137)
        self.assertEqual(box.stdout.all(), b"on\n")
        box.kill(signal.SIGTERM)  # late: no error

    def test_input_ends_by_half_close_and_by_call(self):
        for number, end in enumerate(("half_close_stdin", "close_stdin")):
            box = self.box("wc", "-c", streams=("stdin", "stdout"))
            box.id = box.container_id = f"box{number}"
            box.create()
            box.start()
            box.stdin.sendall(b"12345")
            getattr(box, end)()
            self.assertEqual(int(box.stdout.all()), 5)
            self.assertEqual(box.wait(), 0)

    def test_a_terminal(self):
        box = self.box("sh", "-c", "read a; stty size; exit 2", streams=("stdin", "stdout", "stderr"), terminal=True)
        box.create()
        box.start()
        box.resize(31, 77)
        box.stdin.sendall(b"go\n")
        box.stdout.until("31 77")
        self.assertEqual(box.wait(), 2)

    def test_codes(self):
        box = self.box("sleep", "1000")
        agent = self.host.connect()
        self.fails(CODE.INVALID_ARGUMENT, agent.context.StartProcess, pb.StartProcessRequest(id="x"))
        text = self.fails(CODE.NOT_FOUND, box.start)
        self.assertEqual(text, 'startProcess: failed to start process: notFound: "container box not found"')
        self.fails(CODE.INTERNAL, lambda: box.create_process(box.spec, ports={"stdout": 99}))
        box.create()
        self.fails(CODE.FAILED_PRECONDITION, box.exec("nobody", []).start)
        box.start()
        self.fails(CODE.INTERNAL, box.start)
        self.fails(CODE.UNIMPLEMENTED, lambda: box.resize(1, 1))
        missing = box.exec("missing", ["/no/such"])
        missing.spec["root"] = {"path": "/"}
        missing.create(missing.spec)
        self.assertIn("failed to find target executable /no/such", self.fails(CODE.INTERNAL, missing.start))
        missing.close()
        self.fails(CODE.DEADLINE_EXCEEDED, lambda: box.wait(0.3))
        box.delete()
        self.fails(CODE.NOT_FOUND, box.delete)

    def test_there_is_no_extension(self):
        self.fails(CODE.UNIMPLEMENTED, self.host.connect().extension.Version, ext.VersionRequest())

    def test_the_decoder_demands_its_keys(self):
        full = container_spec("c", process_spec(["x"]), "/")
        full["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}]
        full["process"]["consoleSize"] = {"height": 1, "width": 1}
        full["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "flags": [],
                                    "listenerPath": "", "listenerMetadata": "", "syscalls": [
                                        {"names": [], "action": "SCMP_ACT_ALLOW", "args": [
                                            {"index": 0, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}]}
        full["hooks"] = {kind: [] for kind in REQUIRED[("hooks",)]}
        full["linux"]["devices"] = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 1}]
        decode(encode(full))
        tried = 0
        for path, keys in REQUIRED.items():
            for key in keys:
                spec = copy.deepcopy(json.loads(encode(full)))
                where = spec
                for part in path:
                    where = (where[:1] or [None])[0] if part is ENTRY else (where or {}).get(part)
                    if where is None:
                        break
                if not where:
                    continue
                del where[key]
                tried += 1
                with self.assertRaises(DecodingError, msg=f"{path} {key}"):
                    decode(json.dumps(spec))
        self.assertGreater(tried, 30)
        for bad in (changed(full, linux__namespaces=[{"type": "time", "path": ""}]),
                    changed(full, linux__seccomp__flags=["SECCOMP_FILTER_FLAG_TSYNC"])):
            with self.assertRaises(DecodingError):
                decode(encode(bad))
        decode(encode(changed(full, mounts=MOUNTS, unknown={"key": 1})))


class AppleLikeHybrid(AppleLike):
    """The same over hvsock://PATH."""

    machine_kind = HybridMachine


class Hostile(PlayerCase):
    DEADLINE = 0.3  # seconds; every call here could be answered in a hundredth of it
    # Whose answer to Sync is right, or which this client takes for one (a message that is cut short).
    ANSWERING = {"message-cut", "honest", "unknown-frames", "message-empty", "headers-huge", "no-ok", "bad-ok", "long-ok",
                 "late-ok", "odd-codes", "odd-pids", "ends-early", "no-dial", "late-dial", "double-dial", "floods",
                 "keeps-streams", "holds", "dies-in", "fails-in", "cut"}

    def test_a_call_to_each_fails(self):
        for name in hostile_guest.all_variants():
            if name.partition(":")[0] in self.ANSWERING:
                continue
            with self.subTest(name), hostile_guest.play(name, self.machine.address), Agent(self.machine) as agent:
                begin = time.monotonic()
                with self.assertRaises(grpc.RpcError) as caught:
                    agent.context.Sync(pb.SyncRequest(), timeout=self.DEADLINE)
                self.assertLess(time.monotonic() - begin, 5)
                self.assertNotEqual(caught.exception.code(), CODE.OK)

    def test_those_that_answer_answer(self):
        for name in ("honest", "unknown-frames", "message-empty", "cut:100000"):
            with self.subTest(name), hostile_guest.play(name, self.machine.address), Agent(self.machine) as agent:
                agent.context.Sync(pb.SyncRequest(), timeout=SECONDS)

    def test_what_is_cut_ends(self):
        for size in (0, 9, 40):
            with hostile_guest.play(f"cut:{size}", self.machine.address), Agent(self.machine) as agent:
                self.fails((CODE.UNAVAILABLE, CODE.UNKNOWN, CODE.DEADLINE_EXCEEDED), lambda a=agent: a.context.Sync(
                    pb.SyncRequest(), timeout=5))

    def run_box(self, name, *args, **options):
        """A container of a lying agent, created; the test goes on from there."""
        guest = self.enter_context(hostile_guest.play(name, self.machine.address))
        host = Host(self.machine)
        self.addCleanup(host.close)
        box = host.container("box", [BUSYBOX, *(args or ("sleep", "1000"))], rootfs=lambda _: None, **options)
        box.spec["root"]["path"] = "/"
        self.addCleanup(box.close)
        return guest, box

    def enter_context(self, manager):
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def test_a_held_a_dying_and_a_failing_call(self):
        for name, code in (("holds", CODE.DEADLINE_EXCEEDED), ("dies-in", CODE.UNAVAILABLE),
                           ("fails-in", CODE.INTERNAL)):
            self.new_machine()
            _, box = self.run_box(f"{name}:WaitProcess", "true")
            box.create()
            box.start()
            self.fails(code, lambda b=box: b.wait(1))

    def test_lies_about_ends(self):
        _, box = self.run_box("odd-codes:-1", "true")
        box.create()
        box.start()
        self.assertEqual(box.wait(), -1)
        self.assertLess(box.exit.exited_at.seconds, 0)

    def test_lies_about_pids(self):
        _, box = self.run_box("odd-pids:-1")
        box.create()
        self.assertEqual(box.start(), -1)

    def test_streams_that_do_not_come_come_too_often_or_stay(self):
        _, box = self.run_box("no-dial", streams=("stdout",))
        ports = box.listen()
        box.create_process(box.spec, ports=ports)
        box.listeners["stdout"].settimeout(0.2)
        with self.assertRaises(socket.timeout):
            box.listeners["stdout"].accept()
        self.new_machine()
        _, box = self.run_box("double-dial", streams=("stdout",))
        ports = box.listen()
        box.create_process(box.spec, ports=ports)
        for _ in range(3):
            box.listeners["stdout"].accept()[0].close()
        self.new_machine()
        _, box = self.run_box("keeps-streams", "true", streams=("stdout",))
        box.create()
        box.start()
        self.assertEqual(box.wait(), 5)
        time.sleep(0.2)  # nothing is waited for: it must not end
        self.assertFalse(box.stdout.ended)

    def test_a_flood_goes_on_through_signals(self):
        _, box = self.run_box("floods", streams=("stdout",))
        box.create(unread=True)
        box.start()
        box.kill(9)
        total = 0
        while total < 8 << 20:
            total += len(box.sockets["stdout"].recv(1 << 20))
        self.fails(CODE.DEADLINE_EXCEEDED, lambda: box.wait(0.3))

    def test_bad_handshakes_of_hybrid_vsock(self):
        machine = HybridMachine(self.machine.folder)
        for name in ("bad-ok", "long-ok"):
            with hostile_guest.play(name, machine.address), self.assertRaises(ConnectionError):
                machine.dial(1024, 2)
        for name in ("no-ok", "late-ok"):
            with hostile_guest.play(name, machine.address), self.assertRaises(socket.timeout):
                machine.dial(1024, 0.3)

    def test_it_can_be_run_as_a_program(self):
        ready, ready_inside = os.pipe()
        with open(ready, "rb") as ready_file:
            program = subprocess.Popen([sys.executable, "-B", str(HERE / "hostile_guest.py"), self.machine.address,
                                        "closes", "--ready-fd", str(ready_inside)], pass_fds=[ready_inside])
            os.close(ready_inside)
            self.assertEqual(ready_file.read(), b"\n")
        with self.machine.dial(1024) as stream:
            self.assertEqual(stream.recv(1), b"")
        program.send_signal(signal.SIGTERM)
        self.assertEqual(program.wait(SECONDS), 0)
        self.assertFalse(os.path.exists(self.machine.path(1024)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
