#!/usr/bin/python3
"""Error codes of the process calls, ids, waits, and requests that no honest host sends."""

import concurrent.futures
import json
import socket
import time

import grpc

from host_library import CALL, SECONDS, changed, encode, field, pb, process_spec
from wire_case import CODE, WireCase, main

# Of the seven, with the fields that are needed beside the key.
PROCESS_CALLS = {"CreateProcess": {"configuration": b"{}"}, "StartProcess": {}, "KillProcess": {"signal": 0},
                 "WaitProcess": {}, "ResizeProcess": {"rows": 1, "columns": 1}, "CloseProcessStdin": {},
                 "DeleteProcess": {}}
BAD_IDS = ("", ".", "..", "a/b", "/", "../escaped", "a/../../b", "x" * 256, "sp ace", "nul\0", "new\nline", "émile",
           "/run/container/other")


class Codes(WireCase):
    def call(self, name, **fields):
        return getattr(self.context, name)(getattr(pb, name + "Request")(**fields), timeout=SECONDS)

    def test_a_missing_container_id_is_invalid(self):
        for name, fields in PROCESS_CALLS.items():
            with self.subTest(name):
                self.fails(CODE.INVALID_ARGUMENT, lambda n=name, f=fields: self.call(n, id="x", **f),
                           says="processes in the root of the vm not implemented")

    def test_an_unknown_container_is_not_found(self):
        for name, fields in PROCESS_CALLS.items():
            if name == "CreateProcess":
                continue
            for identity in ("nobody", "exec-of-nobody"):
                with self.subTest(name, id=identity):
                    self.fails(CODE.NOT_FOUND,
                               lambda n=name, f=fields, i=identity: self.call(n, id=i, containerID="nobody", **f),
                               says="container nobody not found")

    def test_an_unknown_exec_of_a_known_container_is_a_failed_precondition(self):
        box = self.running()
        for name, fields in PROCESS_CALLS.items():
            if name == "CreateProcess":
                continue
            with self.subTest(name):
                self.fails(CODE.FAILED_PRECONDITION,
                           lambda n=name, f=fields: self.call(n, id="what", containerID=box.id, **f),
                           says=f"exec what does not exist in container {box.id}")

    def test_ids_that_are_no_names_are_invalid_everywhere_and_make_nothing(self):
        box = self.running()
        for bad in BAD_IDS:
            for name, fields in PROCESS_CALLS.items():
                fields = {**fields}
                if name == "CreateProcess":
                    fields["configuration"] = encode(box.spec)
                for key in ({"id": bad, "containerID": bad}, {"id": bad, "containerID": box.id},
                            {"id": "fine", "containerID": bad}):
                    with self.subTest(name, **key):
                        self.fails(CODE.INVALID_ARGUMENT, lambda n=name, f={**fields, **key}: self.call(n, **f))
        for path in ("/run/escaped", "/run/container/escaped", "/run/container/a", "/run/b"):
            self.assert_no_file(path)
        box.kill(0)

    def test_an_id_of_the_greatest_length_works(self):
        box = self.running(identity="i" * 64)
        self.assertEqual(box.run_exec("e" * 255, "sh", "-c", "exit 3")[0], 3)

    def test_an_inits_id_must_be_its_containers(self):
        box = self.box()
        self.fails(CODE.INVALID_ARGUMENT, lambda: self.call("CreateProcess", id="other", containerID=box.id,
                                                            configuration=encode(box.spec)),
                   says="init process id must match container id")

    def test_texts_have_the_form_that_hosts_know(self):
        text = self.fails(CODE.NOT_FOUND, lambda: self.call("StartProcess", id="n", containerID="n"))
        self.assertRegex(text, r'^startProcess: failed to start process: notFound: "container n not found"')
        text = self.fails(CODE.NOT_FOUND, lambda: self.call("WaitProcess", id="n", containerID="n"))
        self.assertRegex(text, "^waitProcess: failed to wait on process: ")
        text = self.fails(CODE.NOT_FOUND, lambda: self.call("CloseProcessStdin", id="n", containerID="n"))
        self.assertRegex(text, "^closeProcessStdin: failed to close process stdin: ")


class Creates(WireCase):
    def test_a_second_create_of_a_container_or_an_exec_already_exists(self):
        box = self.running()
        self.fails(CODE.ALREADY_EXISTS, lambda: box.create_process(box.spec))
        extra = box.exec("x", ["sleep", "1000"])
        extra.create(extra.spec)
        for _ in range(2):
            self.fails(CODE.ALREADY_EXISTS, lambda: extra.create_process(extra.spec))
            extra.start() if not hasattr(extra, "pid") else None
        extra.kill()
        self.assertEqual(extra.wait(), 137)  # the first one is still the one that is known
        box.kill(0)

    def test_creates_at_the_same_time_have_one_winner(self):
        box = self.box()
        box.mount_root()
        agents = [self.host.connect() for _ in range(6)]
        request = pb.CreateProcessRequest(**box.key(), configuration=encode(box.spec))

        def create(agent):
            try:
                agent.context.CreateProcess(request, timeout=SECONDS)
                return None
            except grpc.RpcError as error:
                return error.code()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            results = list(pool.map(create, agents))
        for agent in agents:
            agent.close()
        self.assertEqual(results.count(None), 1, results)
        self.assertEqual(set(results), {None, CODE.ALREADY_EXISTS})
        box.start()
        box.kill(0)

    def test_configurations_that_cannot_be_used(self):
        """The agent must outlive each; upstream ends its VM on a missing `linux`."""
        wrong = (CODE.INTERNAL, CODE.INVALID_ARGUMENT)
        cases = [
            # Upstream calls what it cannot decode INTERNAL; ours says whose fault it is.
            (b"", wrong), (b"{", wrong), (b"[]", wrong), (b"\xff\xfe", wrong), (b"null", wrong),
            (b'{"a":' * 100000, wrong),
            ({"process": None}, CODE.INVALID_ARGUMENT), ({"root": None}, CODE.INVALID_ARGUMENT),
            ({"linux__namespaces": [{"type": "nonsense", "path": ""}]}, wrong),
            ({"process__user": {"uid": -1, "gid": 0}}, wrong),
            ({"process__user": {"uid": 0, "gid": 0, "username": "nobody-of-that-name"}}, CODE.INTERNAL),
            ({"linux__cgroupsPath": "/../../escape"}, None), ({"linux": None}, None),
            ({"root__path": "/does/not/exist"}, wrong), ({"process__args": []}, wrong),
            ({"mounts": [{"destination": "/proc", "type": "nosuchfs", "source": "x", "options": []}]}, CODE.INTERNAL),
            ({"linux__sysctl": {"kernel.does_not_exist": "1"}}, wrong),
        ]
        for number, (change, codes) in enumerate(cases):
            with self.subTest(number=number, change=str(change)[:60]):
                box = self.box()
                box.mount_root()
                spec = change if isinstance(change, bytes) else changed(box.spec, **change)

                def create_and_start(one=box, configuration=spec):
                    one.create_process(configuration)
                    one.start()
                if codes is None:  # either way is right, as long as the agent lives and nothing escapes
                    try:
                        create_and_start()
                    except grpc.RpcError as error:
                        self.assertIn(error.code(), (CODE.INTERNAL, CODE.INVALID_ARGUMENT))
                else:
                    self.fails(codes, create_and_start)
        self.assert_no_file("/sys/fs/escape")
        self.assert_no_file("/sys/escape")

    def test_a_process_that_cannot_be_executed_is_internal_and_leaves_nothing(self):
        box = self.running()
        for args, says in ((["/no/such/file"], "/no/such/file"), (["no-such-command"], "no-such-command"),
                           (["/etc"], "/etc"), (["/etc/passwd"], "/etc/passwd")):
            extra = box.exec("bad", args)

            def run(one=extra):
                one.create(one.spec)
                one.start()
            self.fails(CODE.INTERNAL, run, says=says)
            try:
                extra.delete()  # upstream it was start that failed, and the exec is still there
            except grpc.RpcError as error:
                self.assertEqual(error.code(), CODE.FAILED_PRECONDITION)
            extra.close()
        box.execs.clear()
        extra = box.exec("user", ["true"])
        extra.spec["process"]["user"] = {"uid": 0, "gid": 0, "username": "nobody-of-that-name"}
        self.fails(CODE.INTERNAL, lambda: extra.create(extra.spec))
        box.execs.clear()

    def test_a_failed_create_leaves_what_the_host_has_mounted(self):
        box = self.box("/no/such/file")
        box.mount_root()
        self.fails(CODE.INTERNAL, lambda: (box.create_process(box.spec), box.start()))
        try:
            box.delete()  # upstream it was start that failed; a host deletes what it has created
        except grpc.RpcError as error:
            self.assertEqual(error.code(), CODE.NOT_FOUND)
            found = self.context.Stat(pb.StatRequest(path=f"{box.root}/bin/busybox"), timeout=SECONDS)
            self.assertGreater(found.stat.size, 0)
            box.create(changed(box.spec, process__args=["sh", "-c", "exit 6"]))
            box.start()
            self.assertEqual(box.wait(), 6)

    def test_an_exec_after_the_end_is_a_failed_precondition(self):
        box = self.running("true")
        box.wait()
        extra = box.exec("late", ["true"])
        self.fails(CODE.FAILED_PRECONDITION, lambda: extra.create(extra.spec))
        box.execs.clear()

    def test_a_configuration_of_mebibytes_works_and_a_too_large_one_is_refused(self):
        box = self.box("sh", "-c", "exit 2")
        box.spec["annotations"] = {f"padding{number}": "x" * 1024 for number in range(3 << 10)}
        box.create()
        box.start()
        self.assertEqual(box.wait(), 2)
        huge = self.box()
        huge.spec["annotations"] = {"padding": "x" * (20 << 20)}
        self.fails(CODE.RESOURCE_EXHAUSTED, lambda: huge.create_process(huge.spec))


class Starts(WireCase):
    def test_a_second_start_fails_and_the_exit_is_still_told(self):
        box = self.running("sh", "-c", "read a; exit 5", streams=("stdin",))
        self.fails((CODE.FAILED_PRECONDITION, CODE.INTERNAL), box.start)
        box.half_close_stdin()
        self.assertEqual(box.wait(), 5)
        self.fails((CODE.FAILED_PRECONDITION, CODE.INTERNAL), box.start)
        self.assertEqual(box.wait(), 5)

    def test_starts_at_the_same_time_have_one_winner(self):
        box = self.box().create()
        agents = [self.host.connect() for _ in range(5)]

        def start(agent):
            try:
                return agent.context.StartProcess(pb.StartProcessRequest(**box.key()), timeout=SECONDS).pid
            except grpc.RpcError as error:
                return error.code()
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            results = list(pool.map(start, agents))
        for agent in agents:
            agent.close()
        self.assertEqual(sum(isinstance(result, int) and result > 1 for result in results), 1, results)
        self.assertTrue(set(results) - {CODE.FAILED_PRECONDITION, CODE.INTERNAL}, results)


class Waits(WireCase):
    def test_many_callers_before_the_start_at_the_end_and_late(self):
        box = self.box("sh", "-c", "read a; exit 9", streams=("stdin",)).create()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            def wait(_):
                with self.host.connect() as agent:
                    return agent.context.WaitProcess(pb.WaitProcessRequest(**box.key()), timeout=SECONDS)
            early = [pool.submit(wait, n) for n in range(10)]
            box.start()
            running = [pool.submit(wait, n) for n in range(10)]
            box.half_close_stdin()
            answers = [call.result(SECONDS) for call in early + running]
        answers += [wait(0), wait(1)]
        self.assertEqual({answer.exitCode for answer in answers}, {9})
        self.assertEqual(len({(a.exited_at.seconds, a.exited_at.nanos) for a in answers}), 1)
        guest_now = int(self.host_date())
        self.assertLess(abs(guest_now - answers[0].exited_at.seconds), 120)

    def host_date(self):
        return self.running().run_exec("date", "date", "+%s")[1]

    def test_a_deadline_or_a_cancelled_wait_touches_nothing(self):
        box = self.running("sh", "-c", "read a; exit 6", streams=("stdin",))
        begin = time.monotonic()
        self.fails(CODE.DEADLINE_EXCEEDED, lambda: box.wait(0.5))
        self.assertLess(time.monotonic() - begin, 10)
        call = self.context.WaitProcess.future(pb.WaitProcessRequest(**box.key()))
        call.cancel()
        box.half_close_stdin()
        self.assertEqual(box.wait(), 6)

    def test_codes_of_exits_and_signals(self):
        keeper = self.running()
        for number, (script, code) in enumerate((("exit 0", 0), ("exit 255", 255), ("exit 256", 0), ("kill -15 $$", 143),
                                                 ("kill -9 $$", 137), ("kill -11 $$", 139), ("kill -64 $$", 192))):
            self.assertEqual(keeper.run_exec(f"x{number}", "sh", "-c", script)[0], code, script)

    def test_a_very_short_program_is_not_lost(self):
        keeper = self.running()
        for number in range(30):
            extra = keeper.exec(f"s{number}", ["true"])
            extra.create(extra.spec)
            extra.start()
            self.assertEqual(extra.wait(10), 0)
            extra.delete()
            extra.close()
        keeper.execs.clear()

    def test_the_end_of_the_init_ends_the_execs(self):
        box = self.running()
        extra = box.exec("x", ["sleep", "1000"])
        extra.create(extra.spec)
        extra.start()
        box.kill()
        self.assertEqual((box.wait(), extra.wait()), (137, 137))

    def test_a_wait_for_a_process_whose_create_failed_does_not_hang(self):
        box = self.running()
        extra = box.exec("gone", ["/no/such/file"])
        with self.assertRaises(grpc.RpcError):
            extra.create(extra.spec)
            extra.start()
        try:
            self.assertNotEqual(extra.wait(10), 0)
        except grpc.RpcError as error:
            self.assertEqual(error.code(), CODE.FAILED_PRECONDITION)
        box.execs.clear()
        extra.close()


class Kills(WireCase):
    def test_signals_reach_the_process_and_a_late_one_is_no_error(self):
        box = self.running("sh", "-c", "trap 'exit 3' USR1; echo on; while :; do sleep 0.05; done", streams=("stdout",))
        box.stdout.until("on")
        box.kill(0)
        box.kill(10)
        self.assertEqual(box.wait(), 3)
        for number in (0, 9, 15):
            box.kill(number)

    def test_only_the_process_itself_is_signalled(self):
        box = self.running("sh", "-c", "(trap 'echo child' TERM; echo on; while :; do sleep 0.05; done) & "
                           "trap 'echo parent' TERM; while :; do wait; done", streams=("stdout",))
        box.stdout.until("on")
        box.kill(15)
        box.stdout.until("parent")
        self.assertNotIn(b"child", box.stdout.data)

    def test_a_signal_that_is_none_is_refused(self):
        box = self.running()
        for number in (-1, -9, 65, 2**31 - 1):
            self.fails(CODE.INVALID_ARGUMENT, lambda n=number: box.kill(n))
        box.kill(0)


class Deletes(WireCase):
    def test_a_second_delete_is_an_error(self):
        box = self.running()
        extra = box.exec("x", ["true"])
        extra.create(extra.spec)
        extra.start()
        extra.wait()
        extra.delete()
        self.fails(CODE.FAILED_PRECONDITION, extra.delete)
        self.assertEqual(box.stop(everything=False), [])
        with self.host.connect() as agent:
            self.assert_code(CODE.NOT_FOUND, agent.context.DeleteProcess, pb.DeleteProcessRequest(**box.key()))

    def test_an_exec_id_can_be_used_again_after_delete(self):
        box = self.running()
        for code in (1, 2):
            self.assertEqual(box.run_exec("again", "sh", "-c", f"exit {code}")[0], code)
        box.execs.clear()

    def test_a_delete_that_could_not_be_finished_can_be_repeated(self):
        """Another container keeps a mount below the folder busy."""
        box = self.box()
        busy = f"/run/container/{box.id}/volume"
        self.context.Mount(pb.MountRequest(type="tmpfs", source="tmpfs", destination=busy), timeout=SECONDS)
        box.create()
        box.start()
        holder = self.running("sh", "-c", "cd /outside && echo in && exec sleep 1000", streams=("stdout",),
                              linux__namespaces=[{"type": "pid", "path": ""}, {"type": "mount", "path": ""}],
                              more_mounts=[{"type": "none", "source": busy, "destination": "/outside",
                                            "options": ["bind"]}])
        holder.stdout.until("in")
        box.kill()
        self.assertEqual(box.wait(), 137)
        try:
            box.delete()  # the bind is a mount of its own: this may well work
        except grpc.RpcError as error:
            self.assertIn(error.code(), (CODE.INTERNAL, CODE.FAILED_PRECONDITION))
            holder.stop(everything=False)
            box.delete()
        box.stopped = True
        box.close()
        self.assert_no_file(f"/run/container/{box.id}")
        self.fails(CODE.NOT_FOUND, box.delete)


class Hostile(WireCase):
    """What reaches the port is anybody's; the agent is PID 1 and must outlive it."""

    def alive(self):
        with self.host.connect() as agent:
            agent.context.Sync(pb.SyncRequest(), timeout=SECONDS)

    def test_bytes_that_are_no_http2(self):
        for data in (b"", b"\0" * 100000, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 10000):
            stream = self.host.machine.dial(1024)
            with stream:
                try:
                    stream.sendall(data)
                    stream.shutdown(socket.SHUT_WR)
                    while stream.recv(65536):
                        pass
                except OSError:
                    pass
            self.alive()

    def test_messages_that_are_no_protobuf(self):
        for name in (*PROCESS_CALLS, "Mount", "Copy", "ContainerStatistics", "ConfigureHosts"):
            call = self.shared.channel.unary_unary(CALL + name)
            if name == "Copy":
                call = self.shared.channel.unary_stream(CALL + name)
            for data in (b"\xff" * 40, field(1, b"\xff\xfe"), b"\x0a\xff\xff\xff\xff\x0f", b"\x08" * 5):
                with self.assertRaises(grpc.RpcError) as caught:
                    answer = call(data, timeout=SECONDS)
                    for _ in answer if name == "Copy" else ():
                        pass
                self.assertNotEqual(caught.exception.code(), CODE.UNAVAILABLE, name)
        self.alive()

    def test_a_call_that_does_not_exist_is_unimplemented(self):
        for path in (CALL + "NoSuchCall", "/no.such.Service/Call", CALL + "../x"):
            self.assert_code(CODE.UNIMPLEMENTED, self.shared.channel.unary_unary(path), b"")
        self.alive()

    def test_many_connections_and_many_held_waits(self):
        box = self.running()
        agents = [self.host.connect() for _ in range(20)]
        calls = [agent.context.WaitProcess.future(pb.WaitProcessRequest(**box.key()))
                 for agent in agents for _ in range(25)]
        self.alive()
        self.assertFalse(any(call.done() for call in calls))
        for agent in agents[:10]:
            agent.close()  # with their waits held
        box.kill()
        for call in calls[10 * 25:]:
            self.assertEqual(call.result(SECONDS).exitCode, 137)
        for agent in agents:
            agent.close()
        self.alive()

    def test_idle_connections_keep_nobody_out(self):
        idle = [self.host.machine.dial(1024) for _ in range(50)]
        self.alive()
        for stream in idle:
            stream.close()

    def test_a_host_that_never_accepts_ends_create_with_an_error(self):
        """A listener whose queue is full: the guest's connection is neither refused nor taken."""
        box = self.box(streams=("stdout",))
        box.mount_root()
        listener = self.host.machine.listen(77777, backlog=0)
        with listener, socket.socket(socket.AF_UNIX) as first:
            first.connect(listener.getsockname())
            begin = time.monotonic()
            try:
                box.create_process(box.spec, ports={"stdout": 77777})
            except grpc.RpcError as error:
                self.assertEqual(error.code(), CODE.INTERNAL)
                self.assertLess(time.monotonic() - begin, 30)
            self.alive()


class Executions(WireCase):
    def test_the_process_of_an_exec_is_all_that_counts(self):
        """Everything else in its configuration is the container's own, whatever the host repeats of it."""
        box = self.running()
        extra = box.exec("x", ["sh", "-c", "pwd; id -u; hostname"], streams=("stdout",))
        extra.spec = json.loads(json.dumps(extra.spec))
        extra.spec.update(hostname="lie", process=process_spec(["sh", "-c", "pwd; id -u; hostname"], cwd="/tmp",
                                                               user=(1000, 1000)))
        extra.spec["linux"]["cgroupsPath"] = "/elsewhere"
        extra.create(extra.spec)
        extra.start()
        self.assertEqual(extra.wait(), 0)
        self.assertEqual(extra.stdout.all().split(), [b"/tmp", b"1000", box.id.encode()])
        self.assert_no_file("/sys/fs/cgroup/elsewhere")


if __name__ == "__main__":
    main()
