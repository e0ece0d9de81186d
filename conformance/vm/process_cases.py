"""What an agent must do with processes and their streams, whether in a VM or as a process of the host.

A test class inherits these and gives `self.guest`.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import socket
import time

import grpc

from agent import pb
from machine import SECONDS, read_all, read_exactly

FAILURE = grpc.StatusCode


def ended(stream):
    """Waits for the other side's end, whichever way the kernel tells of it."""
    try:
        return stream.recv(1) == b""
    except ConnectionResetError:
        return True


class ProcessCases:
    guest = None

    def setUp(self):
        # Ids that no other test has: a test that fails may leave its container.
        self.name = self.id().rsplit(".", 1)[1].removeprefix("test_")[:60]

    @contextlib.contextmanager
    def refused(self, code, text=""):
        with self.assertRaises(grpc.RpcError) as caught:
            yield
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(text, caught.exception.details())

    def held(self, **more):
        """A running container that does nothing, deleted at the end of the test."""
        process = self.guest.create(self.name, ["sleep", "10000"], stdout=False, stderr=False, **more)
        self.addCleanup(self.remove, process)
        process.start()
        return process

    def remove(self, process):
        with contextlib.suppress(grpc.RpcError):
            process.kill(signal.SIGKILL)
        process.delete()

    # ---- life ----

    def test_output_and_exit_code_arrive(self):
        done = self.guest.run(self.name, ["sh", "-c", "echo out; echo err >&2; exit 3"])
        self.assertEqual((done.out, done.err, done.code), (b"out\n", b"err\n", 3))

    def test_death_by_a_signal_is_128_and_its_number(self):
        self.held()
        process = self.guest.execute(self.name, "e1", ["sleep", "10000"])
        process.start()
        process.kill(signal.SIGUSR1)
        self.assertEqual(process.finish().code, 128 + signal.SIGUSR1)

    def test_exit_of_a_very_short_process_is_not_lost(self):
        for number in range(20):
            done = self.guest.run(f"{self.name}{number}", ["sh", "-c", "exit 7"], stdout=False, stderr=False)
            self.assertEqual(done.code, 7)

    def test_many_may_wait_before_and_after_the_end(self):
        process = self.guest.create(self.name, ["sleep", "10000"], stdout=False, stderr=False)
        self.addCleanup(self.remove, process)
        request = pb.WaitProcessRequest(**process.key)
        early = [self.guest.agent.context.WaitProcess.future(request, timeout=SECONDS) for _ in range(5)]
        process.start()
        process.kill(signal.SIGTERM)
        process.kill(signal.SIGKILL)  # the first one has no handler in a pid namespace's init
        answers = [call.result() for call in early] + [self.guest.agent.context.WaitProcess(request, timeout=SECONDS)]
        self.assertEqual({answer.exitCode for answer in answers}, {137})
        self.assertEqual(len({answer.exited_at.ToNanoseconds() for answer in answers}), 1)
        self.assertLess(abs(answers[0].exited_at.ToNanoseconds() / 1e9 - time.time()), 3600)

    def test_end_of_a_client_that_waits_changes_nothing(self):
        process = self.held()
        with self.refused(FAILURE.DEADLINE_EXCEEDED):
            process.wait(0.2)
        process.kill(signal.SIGKILL)
        self.assertEqual(process.wait(), 137)

    def test_exec_runs_beside_the_init(self):
        self.held()
        process = self.guest.execute(self.name, "e1", ["sh", "-c", "cat /proc/1/comm; exit 5"])
        self.assertGreater(process.start(), 1)
        process.finish()
        self.assertEqual((process.out, process.code), (b"busybox\n", 5))

    def test_orphans_of_a_container_are_reaped(self):
        self.held()
        orphans = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status; true"
        # In its own pid namespace the container's init gets them; without one, the agent does.
        done = self.guest.run(self.name + "-vm", ["sh", "-c", orphans], namespaces=("mount",))
        self.assertEqual(done.out, b"")

    # ---- refusals ----

    def test_what_is_there_already_cannot_be_made_again(self):
        self.held()
        with self.refused(FAILURE.ALREADY_EXISTS):
            self.guest.create(self.name, ["true"], stdout=False, stderr=False)
        process = self.guest.execute(self.name, "e1", ["true"], stdout=False, stderr=False)
        with self.refused(FAILURE.ALREADY_EXISTS):
            self.guest.execute(self.name, "e1", ["true"], stdout=False, stderr=False)
        process.start()
        process.wait()
        with self.refused(FAILURE.FAILED_PRECONDITION):
            process.start()
        process.delete()
        with self.refused(FAILURE.FAILED_PRECONDITION):
            process.call("DeleteProcess")

    def test_hostile_ids_are_refused(self):
        for bad in ("../x", "a/b", ".", "..", "", "a" * 5000, "x\0y"):
            with self.subTest(id=bad[:10]), self.refused(FAILURE.INVALID_ARGUMENT):
                self.guest.create(bad, ["true"], stdout=False, stderr=False)

    def test_unknown_container_is_not_found(self):
        for rpc in ("StartProcess", "KillProcess", "WaitProcess", "DeleteProcess", "CloseProcessStdin"):
            with self.subTest(rpc=rpc), self.refused(FAILURE.NOT_FOUND, "nobody"):
                request = getattr(pb, rpc + "Request")(id="nobody", containerID="nobody")
                getattr(self.guest.agent.context, rpc)(request, timeout=SECONDS)

    def test_missing_program_fails_and_leaves_nothing(self):
        for _ in range(2):  # the second time would say that it exists
            config = self.guest.configuration(["true"])
            config["process"]["args"] = ["/no/such/program"]
            with self.refused(FAILURE.INTERNAL, "/no/such/program"):
                self.guest.create(self.name, [], config=config, stdout=False, stderr=False).start()

    def test_program_that_cannot_be_executed_fails_the_start_and_has_an_exit(self):
        process = self.guest.create(self.name, [], config=self.configuration_of("/etc/.keep"))  # an empty file
        request = pb.WaitProcessRequest(**process.key)
        early = self.guest.agent.context.WaitProcess.future(request, timeout=SECONDS)
        with self.refused(FAILURE.INTERNAL, "exec /etc/.keep"):
            process.start()
        self.assertEqual((read_all(process.stdout), read_all(process.stderr)), (b"", b""))
        self.assertEqual((early.result().exitCode, process.wait()), (1, 1))
        process.delete()

    def configuration_of(self, *args, **more):
        config = self.guest.configuration([], **more)
        config["process"]["args"] = list(args)
        return config

    # ---- streams ----

    def test_half_close_of_stdin_is_the_programs_end_of_file(self):
        process = self.guest.create(self.name, ["cat"], stdin=True)
        process.start()
        process.stdin.sendall(b"x" * 200_000)
        process.stdin.shutdown(socket.SHUT_WR)
        process.finish()
        self.assertEqual((process.out, process.code), (b"x" * 200_000, 0))

    def test_close_stdin_lets_what_was_sent_through_first(self):
        process = self.guest.create(self.name, ["cat"], stdin=True)
        process.start()
        process.stdin.sendall(b"last words")
        self.assertEqual(read_exactly(process.stdout, 10), b"last words")
        process.stdin.sendall(b"!")
        process.call("CloseProcessStdin")
        process.call("CloseProcessStdin")
        process.finish()
        self.assertEqual((process.out, process.code), (b"!", 0))

    def test_absent_ports_are_the_null_device(self):
        script = "cat; echo lost >&2; readlink /proc/$$/fd/0; readlink /proc/$$/fd/2"
        done = self.guest.run(self.name, ["sh", "-c", script], stderr=False)
        self.assertEqual((done.out, done.code), (b"/dev/null\n/dev/null\n", 0))
        done = self.guest.run(self.name, ["sh", "-c", "echo lost; name=$(readlink /proc/$$/fd/1); echo $name >&2"], stdout=False)
        self.assertEqual((done.err, done.code), (b"/dev/null\n", 0))

    def test_refused_port_fails_the_create_and_leaves_nothing(self):
        config = json.dumps(self.guest.configuration(["true"])).encode()
        for _ in range(2):
            port, nobody = self.guest.vm.new_port(), self.guest.vm.new_port()
            with self.guest.vm.listen(port, 1) as listener:
                request = pb.CreateProcessRequest(id=self.name, containerID=self.name, configuration=config,
                                                  stdin=port, stdout=nobody)
                with self.refused(FAILURE.INTERNAL, "could not connect"):
                    self.guest.agent.context.CreateProcess(request, timeout=SECONDS)
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(SECONDS)
                    self.assertTrue(ended(connection))

    def test_failed_create_closes_the_streams(self):
        config = self.guest.configuration(["true"])
        config["process"]["args"] = ["/no/such/program"]
        ports = [self.guest.vm.new_port() for _ in range(3)]
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(self.guest.vm.listen(port, 1)) for port in ports]
            request = pb.CreateProcessRequest(
                id=self.name, containerID=self.name, configuration=json.dumps(config).encode(),
                stdin=ports[0], stdout=ports[1], stderr=ports[2])
            with self.refused(FAILURE.INTERNAL):
                self.guest.agent.context.CreateProcess(request, timeout=SECONDS)
            for listener in listeners:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(SECONDS)
                    self.assertTrue(ended(connection))

    def test_reader_that_stops_does_not_hold_the_exit_back(self):
        size = 100_000  # fits into the buffers on the way together, not into the pipe alone
        process = self.guest.create(self.name, ["sh", "-c", f"head -c {size} /dev/zero"], stderr=False)
        process.start()
        begin = time.monotonic()
        self.assertEqual(process.wait(), 0)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(len(read_all(process.stdout)), size)
        process.delete()

    def test_reader_that_stops_stalls_only_its_own_stream(self):
        stalled = self.guest.create(self.name, ["sh", "-c", "yes & exec yes >&2"])
        self.addCleanup(self.remove, stalled)
        stalled.start()
        read_exactly(stalled.stdout, 10)
        for number in range(3):
            done = self.guest.run(f"{self.name}-{number}", ["head", "-c", "3000000", "/dev/zero"])
            self.assertEqual(len(done.out), 3_000_000)
        # Of the stalled process itself, too, the other stream goes on.
        self.assertEqual(len(read_exactly(stalled.stderr, 3_000_000)), 3_000_000)
        self.assertEqual(len(read_exactly(stalled.stdout, 3_000_000)), 3_000_000)

    def test_reader_that_leaves_is_a_broken_pipe_to_the_program(self):
        process = self.guest.create(self.name, ["sh", "-c", "trap '' INT; yes; echo \"got $?\" >&2"])
        process.start()
        read_exactly(process.stdout, 100)
        process.stdout.close()
        process.stdout = None
        process.finish()
        self.assertEqual(process.err.splitlines()[-1], b"got 141")

    def test_sixty_four_processes_have_their_streams_at_once(self):
        self.held()

        def run(number):
            process = self.guest.execute(self.name, f"e{number}", ["cat"], stdin=True)
            process.start()
            return process
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            processes = list(pool.map(run, range(64)))
        data = [b"%d " % number * 5000 for number in range(64)]
        for process, text in zip(processes, data):
            process.stdin.sendall(text)
        for process, text in zip(processes, data):
            self.assertEqual(read_exactly(process.stdout, len(text)), text)
        for process in processes:
            process.stdin.shutdown(socket.SHUT_WR)
        for process in processes:
            process.finish()
            self.assertEqual((process.out, process.err, process.code), (b"", b"", 0))

    # ---- terminals ----

    def test_terminal_echoes_and_has_the_size_that_was_asked_for(self):
        process = self.guest.create(self.name, ["sh", "-c", "tty; stty size; read line; stty size; echo got $line"],
                                    stdin=True, terminal=True)
        process.call("ResizeProcess", rows=33, columns=111)  # before the start
        process.start()
        self.assertEqual(read_exactly(process.stdout, len("/dev/pts/0\r\n33 111\r\n")), b"/dev/pts/0\r\n33 111\r\n")
        process.call("ResizeProcess", rows=44, columns=122)
        process.stdin.sendall(b"hi\n")
        process.finish()
        self.assertEqual((process.out, process.code), (b"hi\r\n44 122\r\ngot hi\r\n", 0))

    def test_terminal_of_an_exec(self):
        self.held()
        process = self.guest.execute(self.name, "e1", ["sh", "-c", "tty; ls -l /proc/self/fd/2 | grep -c pts"],
                                     terminal=True)
        process.start()
        process.finish()
        self.assertEqual((process.out, process.code), (b"/dev/pts/0\r\n1\r\n", 0))

    def test_terminal_without_streams_does_not_stop_its_program(self):
        process = self.guest.create(self.name, ["sh", "-c", "head -c 300000 /dev/zero; exit 6"], terminal=True,
                                    stdout=False)
        process.start()
        self.assertEqual(process.wait(), 6)
        process.delete()

    def test_end_of_stdin_is_no_end_of_a_terminal(self):
        process = self.guest.create(self.name, ["sh", "-c", "echo ready; sleep 0.5; echo still here; read x"],
                                    stdin=True, terminal=True)
        self.addCleanup(self.remove, process)
        process.start()
        self.assertEqual(read_exactly(process.stdout, 7), b"ready\r\n")
        process.stdin.shutdown(socket.SHUT_WR)
        self.assertEqual(read_exactly(process.stdout, 12), b"still here\r\n")
        with self.refused(FAILURE.DEADLINE_EXCEEDED):
            process.wait(0.3)

    def test_sizes_out_of_range_and_of_no_terminal_are_refused(self):
        process = self.held()
        with self.refused(FAILURE.UNIMPLEMENTED, "resize not supported"):
            process.call("ResizeProcess", rows=1, columns=1)
        terminal = self.guest.create(self.name + "-t", ["cat"], terminal=True)
        self.addCleanup(self.remove, terminal)
        with self.refused(FAILURE.INVALID_ARGUMENT):
            terminal.call("ResizeProcess", rows=65536, columns=1)
        terminal.start()
        terminal.call("ResizeProcess", rows=65535, columns=65535)

    def test_terminal_that_loses_its_reader_is_hung_up(self):
        process = self.guest.create(self.name, ["sh", "-c", "trap 'exit 9' HUP; while true; do echo x; sleep 0.02; done"],
                                    stdin=True, terminal=True)
        process.start()
        read_exactly(process.stdout, 10)
        process.stdout.close()
        process.stdout = None
        self.assertEqual(process.wait(), 9)
        process.delete()

    # ---- hooks, names, groups ----

    def no_hooks(self):
        """As Apple's decoder wants them: every list is there."""
        return {kind: [] for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart",
                                      "poststop")}

    def hook(self, command):
        return {"path": self.guest.rootfs + "/bin/busybox", "args": ["sh", "-c", command], "env": []}

    def noted(self, note):
        """The JSON texts in a file that hooks have written."""
        mounts = [*self.guest.configuration([])["mounts"],
                  {"type": "none", "source": "/tmp", "destination": "/notes", "options": ["rbind"]}]
        text = self.guest.run(f"{self.name}-{time.time_ns()}", ["cat", f"/notes/{os.path.basename(note)}"],
                              mounts=mounts).out.decode()
        states, decoder = [], json.JSONDecoder()
        while text.strip():
            state, end = decoder.raw_decode(text)
            states.append(state)
            text = text[end:].lstrip()
        return states

    def test_hooks_of_a_configuration_run_with_its_state(self):
        note = f"/tmp/{self.name}-{time.time_ns()}"
        self.addCleanup(pathlib.Path(note).unlink, missing_ok=True)  # in a VM it is the guest's, and goes with it
        hooks = self.no_hooks()
        busybox = self.guest.rootfs + "/bin/busybox"
        for kind in ("prestart", "createRuntime", "poststart", "poststop"):
            hooks[kind] = [self.hook(f"{busybox} cat >> {note}")]
        # Of those that come late a failure is a warning, and the next one runs.
        hooks["poststart"].insert(0, self.hook("exit 1"))
        process = self.guest.create(self.name, ["sleep", "10000"], stdout=False, stderr=False, hooks=hooks)
        self.assertEqual([state["status"] for state in self.noted(note)], ["created"] * 2)
        pid = process.start()
        self.assertEqual(self.noted(note)[2]["status"], "running")
        process.kill(signal.SIGKILL)
        process.wait()
        process.delete()
        states = self.noted(note)
        self.assertEqual([state["status"] for state in states], ["created", "created", "running", "stopped"])
        self.assertEqual({state["id"] for state in states}, {self.name})
        self.assertEqual([state.get("pid") for state in states], [pid, pid, pid, None])

    def test_hook_that_fails_fails_the_create(self):
        hooks = self.no_hooks()
        hooks["createRuntime"] = [self.hook("echo no >&2; exit 4")]
        for _ in range(2):
            with self.refused(FAILURE.INTERNAL, "createRuntime hook #0"):
                self.guest.create(self.name, ["true"], stdout=False, stderr=False, hooks=hooks)

    def test_hostname_is_set_and_written(self):
        done = self.guest.run(self.name, ["sh", "-c", "hostname; cat /etc/hostname"], hostname="a-name")
        self.assertEqual(done.out, b"a-name\na-name")

    def test_deleting_a_running_container_kills_it(self):
        process = self.guest.create(self.name, ["sleep", "10000"], stderr=False)
        process.start()
        request = pb.WaitProcessRequest(**process.key)
        waiting = self.guest.agent.context.WaitProcess.future(request, timeout=SECONDS)
        process.kill(0)  # on the same connection: when it is answered the other call has arrived
        process.call("DeleteProcess")
        self.assertEqual(read_all(process.stdout), b"")
        self.assertEqual(waiting.result().exitCode, 137)
        process.close()
        with self.refused(FAILURE.NOT_FOUND):
            process.call("DeleteProcess")
