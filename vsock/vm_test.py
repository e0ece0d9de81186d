#!/usr/bin/env python3
"""arca-vsock with a real guest kernel.

Boots a VM whose only program is vsock_vm_guest and checks, from the host's side, what a stream must hold: bytes both
ways, half-close, many streams, a reader that stops, refusals, deaths. What it needs: vm_world.py.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import socket
import stat
import threading
import time
import unittest

from vm_world import (BOOT_SECONDS, ECHO, MIB, SECONDS, SINK, SOURCE, STALL, STORE, World, check_programs, ended,
                      read_all, read_exactly, until, until_full)


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

    def test_a_guest_with_a_small_buffer_of_its_own_is_told_of_space_in_time(self):
        for port, size in ((5010, 4096), (5011, 32768)):
            with self.subTest(buffer=size), self.backend.listen(port) as listener, \
                    concurrent.futures.ThreadPoolExecutor() as pool:
                asked = pool.submit(self.backend.command, f"send {port} {MIB} {size}")
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(SECONDS)
                    self.assertEqual(len(read_all(connection)), MIB)
                self.assertEqual(asked.result(SECONDS), "ok")

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


if __name__ == "__main__":
    check_programs()
    unittest.main(verbosity=2)
