#!/usr/bin/python3
"""Standard streams over the host's ports: ends and half ends, terminals, refusals, readers that stop, many at once."""

import concurrent.futures
import hashlib
import os
import select
import signal
import socket
import threading
import time

import grpc

from host_library import SECONDS, Output, pb
from wire_case import CODE, Sandbox, WireCase, main

ALL = ("stdin", "stdout", "stderr")
MIB = 1 << 20


def readable(stream, seconds=0.0):
    return bool(select.select([stream], [], [], seconds)[0])


class Pipes(WireCase):
    def test_streams_are_apart_and_each_has_its_end(self):
        box = self.running("sh", "-c", "cat; echo err >&2", streams=ALL)
        box.stdin.sendall(b"in")
        box.half_close_stdin()
        self.assertEqual((box.stdout.all(), box.stderr.all()), (b"in", b"err\n"))
        self.assertEqual(box.wait(), 0)

    def test_the_ends_come_before_the_answer_of_wait_even_when_grandchildren_hold_the_pipes(self):
        keeper = self.running()
        extra = keeper.exec("x", ["sh", "-c", "sleep 1000 & echo hi; exit 4"], streams=("stdout", "stderr"))
        extra.create(extra.spec)
        extra.start()
        self.assertEqual(extra.wait(), 4)
        self.assertEqual(extra.stdout.all(3), b"hi\n")
        self.assertEqual(extra.stderr.all(3), b"")

    def test_all_that_was_written_before_the_exit_arrives(self):
        size = 3 * MIB
        box = self.box("sh", "-c", f"head -c {size} /dev/zero; echo end >&2", streams=("stdout", "stderr"))
        box.create()
        box.start()
        self.assertEqual(box.wait(), 0)
        self.assertEqual((len(box.stdout.all()), box.stderr.all()), (size, b"end\n"))

    def test_bytes_come_back_identical(self):
        box = self.running("cat", streams=("stdin", "stdout"))
        data = os.urandom(MIB) + bytes(range(256)) * 4096 * 7
        sender = threading.Thread(target=lambda: (box.stdin.sendall(data), box.half_close_stdin()))
        sender.start()
        got = box.stdout.all()
        sender.join()
        self.assertEqual(hashlib.sha256(got).hexdigest(), hashlib.sha256(data).hexdigest())
        self.assertEqual(box.wait(), 0)

    def test_close_of_stdin_by_call_drains_what_is_on_the_way(self):
        box = self.running("sh", "-c", "sleep 0.3; wc -c", streams=("stdin", "stdout"))
        box.stdin.sendall(b"x" * 50000)
        box.close_stdin()
        self.assertEqual(int(box.stdout.all()), 50000)
        self.assertEqual(box.wait(), 0)

    def test_close_of_stdin_may_be_repeated_and_needs_no_stdin(self):
        box = self.running("cat", streams=("stdin", "stdout"))
        box.close_stdin()
        self.assertEqual(box.wait(), 0)
        box.close_stdin()
        without = self.running("cat")  # /dev/null: it ends at once
        without.close_stdin()
        self.assertEqual(without.wait(), 0)

    def test_a_host_that_closes_stdin_whole_ends_it_as_well(self):
        box = self.running("sh", "-c", "cat > /dev/null; echo over", streams=("stdin", "stdout"))
        box.stdin.sendall(b"x")
        box.stdin.close()
        box.stdout.until("over\n")
        self.assertEqual(box.wait(), 0)

    def test_a_program_that_closes_stdout_ends_the_stream_and_lives(self):
        box = self.running("sh", "-c", "echo last; exec >&-; cat; exit 8", streams=ALL)
        self.assertEqual(box.stdout.all(), b"last\n")
        self.assertFalse(box.stderr.ended)
        box.half_close_stdin()
        self.assertEqual(box.wait(), 8)

    def test_a_program_that_closes_stdin_ends_it_for_the_host(self):
        box = self.running("sh", "-c", "exec <&-; echo closed; sleep 1000", streams=("stdin", "stdout"))
        box.stdout.until("closed")
        deadline = time.monotonic() + 10
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < deadline:
                box.stdin.sendall(b"x" * 4096)

    def test_a_host_that_closes_stdout_gives_the_program_a_broken_pipe(self):
        box = self.box("sh", "-c", "while :; do echo y || exit 9; done; exit 3", streams=("stdout", "stderr"))
        box.create(unread=True)
        box.start()
        self.assertTrue(box.sockets["stdout"].recv(10))
        box.sockets["stdout"].close()
        self.assertIn(box.wait(), (9, 128 + signal.SIGPIPE))

    def test_absent_ports_are_dev_null(self):
        box = self.running("sh", "-c", "ls -l /proc/self/fd/ | sed -n 's/.* \\([0-2]\\) -> /\\1 /p' > /tmp/fds; "
                           "exec sleep 1000")
        code, text = b"", b""
        deadline = time.monotonic() + SECONDS
        number = 0
        while b"2 /dev/null" not in text and time.monotonic() < deadline:
            code, text = box.run_exec(f"look{number}", "cat", "/tmp/fds")
            number += 1
        self.assertEqual(code, 0)
        self.assertIn(b"0 /dev/null", text)
        reads = self.running("sh", "-c", "cat; echo $?; echo lost >&2", streams=("stdout",))
        self.assertEqual((reads.wait(), reads.stdout.all()), (0, b"0\n"))

    def test_each_port_is_dialled_once_and_in_order(self):
        """stdin, stdout, stderr: a refused first one means that the others were not tried."""
        for refused in range(3):
            box = self.box(streams=ALL)
            box.mount_root()
            ports = box.listen()
            box.listeners[ALL[refused]].close()
            os.unlink(f"{Sandbox.machine.base}_{ports[ALL[refused]]}")
            self.fails(CODE.INTERNAL, lambda b=box, p=ports: b.create_process(b.spec, ports=p),
                       says="could not connect to")
            for number, name in enumerate(ALL):
                if number < refused:
                    stream, _ = box.listeners[name].accept()
                    stream.settimeout(SECONDS)
                    self.assertEqual(stream.recv(1), b"")  # closed again
                    stream.close()
                elif number > refused:
                    self.assertFalse(readable(box.listeners[name]), name)
            box.close()

    def test_a_refused_port_leaves_the_root_and_the_id_for_another_try(self):
        box = self.box("sh", "-c", "exit 5", streams=("stdout",))
        box.mount_root()
        self.fails(CODE.INTERNAL, lambda: box.create_process(box.spec, ports={"stdout": 0x1fffffff}),
                   says="could not connect to")
        self.assert_no_file(f"/sys/fs/cgroup/container/{box.id}")
        box.create()
        box.start()
        self.assertEqual(box.wait(), 5)
        self.assertEqual(box.stop(everything=False), [])

    def test_a_port_zero_that_is_there_is_dialled(self):
        box = self.box()
        box.mount_root()
        self.fails(CODE.INTERNAL, lambda: box.create_process(box.spec, ports={"stdout": 0}),
                   says="could not connect to")

    def test_a_failed_start_or_create_ends_the_streams(self):
        box = self.box("/no/such/program", streams=ALL)
        box.mount_root()

        def create_and_start():
            box.create()
            box.start()
        self.fails(CODE.INTERNAL, create_and_start, says="/no/such/program")
        if not box.outputs:  # create found it
            box.accept()
            box.outputs = {name: Output(box.sockets[name]) for name in ("stdout", "stderr")}
        self.assertEqual((box.stdout.all(5), box.stderr.all(5)), (b"", b""))
        box.stdin.settimeout(5)
        self.assertEqual(box.stdin.recv(1), b"")


class Terminals(WireCase):
    def test_a_terminal_has_its_size_its_name_and_no_stderr(self):
        box = self.box("sh", "-c", "tty; read line; stty size; exit 2", streams=ALL, terminal=True)
        box.create()
        self.assertNotIn("stderr", box.sockets)
        box.start()
        box.stdout.until("/dev/pts/")
        box.resize(33, 101)
        box.stdin.sendall(b"go\n")
        box.stdout.until("33 101\r\n")
        self.assertEqual(box.wait(), 2)
        box.stdout.all()

    def test_stderr_is_never_dialled(self):
        box = self.box("sleep", "1000", streams=ALL, terminal=True)
        box.mount_root()
        ports = box.listen()
        box.create_process(box.spec, ports=ports)
        box.start()
        self.assertFalse(readable(box.listeners["stderr"]))
        box.accept(("stdin", "stdout"))

    def test_a_size_given_before_the_start_is_the_first_that_the_program_sees(self):
        box = self.box("stty", "size", streams=("stdin", "stdout"), terminal=True)
        box.create()
        box.resize(45, 67)
        box.start()
        self.assertIn(b"45 67", box.stdout.all())

    def test_keys_are_signals_and_the_hosts_end_is_no_end_of_file(self):
        script = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.1; done"
        box = self.running("sh", "-c", script, streams=("stdin", "stdout"), terminal=True)
        box.stdout.until("ready")
        box.stdin.sendall(b"\x03")
        box.stdout.until("interrupted")
        box.half_close_stdin()
        box.kill(0)  # still there
        box.kill(signal.SIGKILL)
        self.assertEqual(box.wait(), 137)

    def test_the_end_of_file_key_ends_the_input(self):
        box = self.running("cat", streams=("stdin", "stdout"), terminal=True)
        box.stdin.sendall(b"line\n\x04")
        self.assertEqual(box.wait(), 0)
        self.assertIn(b"line\r\nline\r\n", box.stdout.all())

    def test_close_of_stdin_by_call_leaves_the_terminal(self):
        box = self.running("sh", "-c", "read a; echo got $a; sleep 1000", streams=("stdin", "stdout"), terminal=True)
        box.stdin.sendall(b"word\n")
        box.close_stdin()
        box.stdout.until("got word")
        box.kill(0)

    def test_an_exec_has_a_terminal_of_its_own(self):
        box = self.running(streams=("stdin", "stdout"), terminal=True)
        extra = box.exec("x", ["sh", "-c", "test -t 2 && tty; exit 6"], streams=("stdin", "stdout"), terminal=True)
        extra.create(extra.spec)
        extra.start()
        self.assertEqual(extra.wait(), 6)
        self.assertIn(b"/dev/pts/", extra.stdout.all())

    def test_much_output_of_a_terminal_arrives_whole(self):
        box = self.running("sh", "-c", "stty -opost; seq 1 40000", streams=("stdin", "stdout"), terminal=True)
        self.assertEqual(box.wait(), 0)
        lines = box.stdout.all().split()
        self.assertEqual((len(lines), lines[-1]), (40000, b"40000"))

    def test_more_input_than_the_terminal_holds_does_not_end_it(self):
        """A full input queue is a reason to wait, not an end of the stream."""
        box = self.box("sh", "-c", "stty raw -echo; echo ready; sleep 1; head -c 100000 | wc -c; sleep 1000",
                       streams=("stdin", "stdout"), terminal=True)
        box.create()
        box.start()
        box.stdout.until("ready")
        box.stdin.sendall(b"x" * 100000)
        box.stdout.until("100000")

    def test_resize_is_refused_without_a_terminal_and_beyond_its_range(self):
        box = self.running()
        self.fails(CODE.UNIMPLEMENTED, lambda: box.resize(10, 10), says="resize not supported")
        terminal = self.running(streams=("stdin", "stdout"), terminal=True)
        self.fails(CODE.INVALID_ARGUMENT, lambda: terminal.resize(65536, 10))
        self.fails(CODE.INVALID_ARGUMENT, lambda: terminal.resize(10, 2**32 - 1))
        terminal.resize(65535, 65535)
        terminal.kill()
        self.assertEqual(terminal.wait(), 137)
        terminal.resize(10, 10)  # too late, no error


class Load(WireCase):
    def test_a_reader_that_stops_stalls_only_its_own_stream(self):
        keeper = self.running()
        stalled = []
        for number in range(4):
            flood = keeper.exec(f"flood{number}", ["cat", "/dev/zero"], streams=("stdout",))
            flood.create(flood.spec, unread=True)
            flood.start()
            stalled.append(flood)
        for flood in stalled:
            self.assertTrue(readable(flood.sockets["stdout"], SECONDS))
        stuffed = keeper.exec("stuffed", ["sleep", "1000"], streams=("stdin",))
        stuffed.create(stuffed.spec)
        stuffed.start()
        stuffed.stdin.setblocking(False)
        last = time.monotonic()
        while time.monotonic() - last < 0.5:  # until nothing has gone in for a while: every buffer is full
            try:
                stuffed.stdin.send(b"z" * 65536)
                last = time.monotonic()
            except BlockingIOError:
                select.select([], [stuffed.stdin], [], 0.1)
        begin = time.monotonic()
        echo = keeper.exec("echo", ["cat"], streams=("stdin", "stdout"))
        echo.create(echo.spec)
        echo.start()
        for number in range(20):
            echo.stdin.sendall(b"%d;" % number)
            echo.stdout.until(b"%d;" % number, 10)
        self.assertLess(time.monotonic() - begin, 15)
        # Nor do they hold up the news of their own ends.
        for process in (*stalled, stuffed):
            process.kill()
            self.assertEqual(process.wait(10), 137)

    def test_a_reader_that_goes_on_gets_everything(self):
        box = self.box("sh", "-c", "seq 1 200000", streams=("stdout",))
        box.create(unread=True)
        box.start()
        self.assertTrue(readable(box.sockets["stdout"], SECONDS))
        # It cannot have ended: more than all buffers hold is still to be read.
        self.fails(CODE.DEADLINE_EXCEEDED, lambda: box.wait(1))
        output = Output(box.sockets["stdout"])
        box.outputs["stdout"] = output
        self.assertEqual(box.wait(), 0)
        lines = output.all().split()
        self.assertEqual((len(lines), lines[-1]), (200000, b"200000"))

    def agent_kib(self):
        """What the agent has resident."""
        witness = self.running(linux__namespaces=[{"type": "mount", "path": ""}])
        text = witness.run_exec("status", "cat", "/proc/1/status")[1]
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(b"VmRSS:"))

    def test_sixty_four_processes_with_streams_at_once_while_waits_are_held(self):
        keeper = self.running()
        with concurrent.futures.ThreadPoolExecutor(70) as pool:
            held = pool.submit(keeper.wait, 300)

            def one(number):
                process = keeper.exec(f"p{number}", ["sh", "-c", f"cat; echo {number} >&2; exit {number}"], streams=ALL)
                process.create(process.spec)
                process.start()
                waiting = threading.Thread(target=process.wait, args=(120,))
                waiting.start()
                all_run.wait(120)  # nobody's input ends before all of them run
                process.stdin.sendall(b"%d " % number * 1000)
                process.half_close_stdin()
                output, errors = process.stdout.all(120), process.stderr.all(120)
                waiting.join(120)
                process.delete()
                process.close()
                return (output == b"%d " % number * 1000, errors, process.exit.exitCode)
            all_run = threading.Barrier(64)
            results = list(pool.map(one, range(64)))
            self.assertEqual(results, [(True, b"%d\n" % n, n) for n in range(64)])
            self.assertFalse(held.done())
            keeper.kill()
            self.assertEqual(held.result(SECONDS), 137)
        self.assertLessEqual(self.agent_kib(), 12 << 10)

    def test_nothing_is_left_open_in_the_agent(self):
        """A container without a pid namespace sees the agent's descriptors."""
        witness = self.running(linux__namespaces=[{"type": "mount", "path": ""}])

        def count(name):
            code, text = witness.run_exec(name, "sh", "-c", "ls /proc/1/fd | wc -l")
            self.assertEqual(code, 0)
            return int(text)
        count("warm")
        before = count("before")
        for number in range(12):
            witness.run_exec(f"x{number}", "echo", "text")
            gone = witness.exec(f"gone{number}", ["/no/such/program"], streams=("stdin", "stdout"))
            with self.assertRaises(grpc.RpcError):
                gone.create(gone.spec)
                gone.start()
            gone.deleted = True
            gone.close()
        other = self.running("cat", streams=ALL)
        other.kill()
        other.wait()
        other.stop(everything=False)
        deadline = time.monotonic() + 10  # connections end a moment after their clients
        while (after := count(f"after{time.monotonic_ns()}")) > before and time.monotonic() < deadline:
            pass
        self.assertLessEqual(after, before)

    def test_a_lost_connection_ends_nothing(self):
        box = self.running("cat", streams=("stdin", "stdout"))
        box.agent.close()
        box.agent = None
        box.stdin.sendall(b"still")
        box.stdout.until("still")
        box.stdin.shutdown(socket.SHUT_WR)
        self.assertEqual(box.wait(), 0)
        self.context.Sync(pb.SyncRequest(), timeout=SECONDS)


if __name__ == "__main__":
    main()
