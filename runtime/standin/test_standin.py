#!/usr/bin/env python3
"""arca-standin from outside: we are its monitor and its engine. ARCA_STANDIN names the program."""

import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import termios
import unittest

HERE = pathlib.Path(__file__).resolve().parent
STANDIN = os.environ.get("ARCA_STANDIN") or str(HERE.parent.parent / "build" / "release" / "bin" / "arca-standin")
STATIC = os.environ.get("ARCA_STATIC") != "OFF"  # what is shipped
SIGNAL, RESIZE, EXIT, LOST = range(1, 5)
PACKET = struct.Struct("=III")
SECONDS = 10


PT_INTERP = 3  # asks for a dynamic loader


def program_header_types(elf):
    offset, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<I", elf, offset + number * size)[0] for number in range(count)]


class StandIn:
    def __init__(self, *arguments, **options):
        self.lease, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.lease.settimeout(SECONDS)
        with inside:
            self.process = subprocess.Popen([STANDIN, "--lease-fd", str(inside.fileno()), *arguments],
                                            pass_fds=[inside.fileno(), *options.pop("pass_fds", ())],
                                            **{"stdin": subprocess.DEVNULL, **options})

    def send(self, kind, a=0, b=0):
        self.lease.send(PACKET.pack(kind, a, b))

    def receive(self):
        return PACKET.unpack(self.lease.recv(64))

    def wait(self):
        return self.process.wait(SECONDS)

    def signal(self, number):
        """Sends a signal once it would be forwarded: a process that starts has not blocked it yet."""
        wanted = 1 << (number - 1)
        while True:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk:"))
            if blocked & wanted:
                break
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}")
        self.process.send_signal(number)

    def close(self):
        self.lease.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        if self.process.stderr:
            self.process.stderr.close()


class StandInTest(unittest.TestCase):
    def stand_in(self, *arguments, **options):
        made = StandIn(*arguments, **options)
        self.addCleanup(made.close)
        return made

    def test_leaves_with_the_code_that_the_monitor_sends(self):
        for code in (0, 1, 137, 255):
            with self.subTest(code=code):
                stand_in = self.stand_in()
                stand_in.send(EXIT, code)
                self.assertEqual(stand_in.wait(), code)

    def test_a_lost_sandbox_or_monitor_is_255_and_says_so(self):
        for end in (lambda s: s.send(LOST), lambda s: s.lease.close()):
            stand_in = self.stand_in(stderr=subprocess.PIPE)
            end(stand_in)
            self.assertEqual(stand_in.wait(), 255)
            self.assertIn(b"gone", stand_in.process.stderr.read())

    def test_signals_are_forwarded_and_do_nothing_here(self):
        stand_in = self.stand_in()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTSTP, 64):
            stand_in.signal(number)
            self.assertEqual(stand_in.receive(), (SIGNAL, number, 0))
        stand_in.send(EXIT, 3)
        self.assertEqual(stand_in.wait(), 3)

    def test_an_exit_wins_over_a_signal_that_comes_with_it(self):
        stand_in = self.stand_in()
        stand_in.signal(signal.SIGUSR1)  # it forwards
        self.assertEqual(stand_in.receive()[0], SIGNAL)
        stand_in.process.send_signal(signal.SIGSTOP)
        stand_in.process.send_signal(signal.SIGTERM)
        stand_in.send(EXIT, 9)
        stand_in.process.send_signal(signal.SIGCONT)
        self.assertEqual(stand_in.wait(), 9)

    def test_a_new_size_of_the_terminal_is_told(self):
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        with open(slave, "r+b", buffering=0) as terminal:
            stand_in = self.stand_in("--terminal", stdin=terminal, stdout=terminal, stderr=terminal)
        stand_in.signal(signal.SIGUSR1)
        self.assertEqual(stand_in.receive()[0], SIGNAL)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        self.assertEqual(stand_in.receive(), (RESIZE, 33, 101))

    def test_it_has_a_session_of_its_own_and_keeps_nothing_else_open(self):
        reader, writer = os.pipe()
        stand_in = self.stand_in(pass_fds=[writer])
        os.close(writer)
        try:
            self.assertTrue(select.select([reader], [], [], SECONDS)[0])
            self.assertEqual(os.read(reader, 1), b"")
        finally:
            os.close(reader)
        self.assertEqual(os.getsid(stand_in.process.pid), stand_in.process.pid)

    @unittest.skipUnless(os.geteuid() == 0, "making namespaces needs root")
    def test_namespaces_are_made_and_joined(self):
        clone_newuts, clone_newnet = 0x04000000, 0x40000000
        first = self.stand_in("--unshare", str(clone_newuts | clone_newnet))
        first.signal(signal.SIGUSR1)
        first.receive()

        def namespace(stand_in, kind):
            return os.readlink(f"/proc/{stand_in.process.pid}/ns/{kind}")
        self.assertNotEqual(namespace(first, "net"), os.readlink("/proc/self/ns/net"))
        joined = os.open(f"/proc/{first.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        second = self.stand_in("--join-fd", str(joined), pass_fds=[joined])
        os.close(joined)
        second.signal(signal.SIGUSR1)
        second.receive()
        self.assertEqual(namespace(second, "net"), namespace(first, "net"))
        self.assertNotEqual(namespace(second, "uts"), namespace(first, "uts"))

    def test_wrong_arguments_are_2(self):
        for arguments in ([], ["--lease-fd"], ["--lease-fd", "x"], ["--lease-fd", "0"], ["--what", "1"]):
            done = subprocess.run([STANDIN, *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=SECONDS, check=False)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertTrue(done.stderr)

    @unittest.skipUnless(STATIC, "only what is shipped is static")
    def test_the_shipped_program_is_small_static_and_light(self):
        self.assertLessEqual(os.path.getsize(STANDIN), 1 << 20)
        self.assertNotIn(PT_INTERP, program_header_types(pathlib.Path(STANDIN).read_bytes()))
        stand_in = self.stand_in()
        stand_in.signal(signal.SIGUSR1)
        stand_in.receive()
        with open(f"/proc/{stand_in.process.pid}/status", encoding="ascii") as status:
            resident_kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
        self.assertLessEqual(resident_kib, 1024)


if __name__ == "__main__":
    unittest.main(verbosity=2)
