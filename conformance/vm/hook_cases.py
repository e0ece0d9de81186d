"""What an agent must do with hooks and hook services, whether in a VM or as a process of the host.

A test class inherits these and gives `self.guest`, `self.notes` (a folder of the agent's root that hooks write to and that
containers see at /notes), write_hook_file(), read_note(), root_processes() and listener (the program below, there).
"""

import contextlib
import json
import signal
import time

import grpc

from agent import ext, pb
from machine import SECONDS, until

FAILURE = grpc.StatusCode
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
IN_CREATE = STAGES[:3]
INSIDE = ("startContainer",)  # its path is the container's

# Listens on a vsock port or on a Unix socket, then does nothing.
LISTENER = """
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char** argv) {
    struct sockaddr_vm vm = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd;
    if (argc != 3) return 2;
    vm.svm_port = (unsigned)strtoul(argv[2], 0, 10);
    strncpy(un.sun_path, argv[2], sizeof un.sun_path - 1);
    if (strcmp(argv[1], "vsock") == 0) {
        fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr*)&vm, sizeof vm) != 0) return 3;
    } else {
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr*)&un, sizeof un) != 0) return 3;
    }
    sleep(1); /* bound, but nobody is answered yet */
    if (listen(fd, 8) != 0) return 4;
    while (1) pause();
}
"""


class HookCases:
    guest = notes = listener = None

    def setUp(self):
        # Names that no other test has; the mark is on the command line of what must not be left.
        self.name = self.id().rsplit(".", 1)[1].removeprefix("test_")[:60]
        self.mark = str(10 ** 8 + time.time_ns() // 1000 % 10 ** 8)
        self.busybox = self.guest.rootfs + "/bin/busybox"

    # ---- making hooks ----

    def shell(self, script, stage="prestart", **more):
        """A hook that runs a shell script; $B is busybox, $N the folder of notes."""
        inside = stage in INSIDE
        busybox, notes = ("/bin/busybox", "/notes") if inside else (self.busybox, self.notes)
        return {"path": busybox, "args": ["sh", "-c", f"B={busybox}; N={notes}/{self.name}; {script}", stage], **more}

    def say(self, word, stage="prestart", then="true", **more):
        return self.shell(f"echo {word} >> $N; {then}", stage, **more)

    def put_file(self, name, stages, hook, service=None):
        """A file of hooks.d for the containers of this test."""
        text = {"version": "1.0.0", "hook": hook, "when": {"annotations": {"^test$": f"^{self.name}$"}}, "stages": stages}
        if service is not None:
            text["service"] = service
        self.write_hook_file(f"{self.name}-{name}.json", json.dumps(text))
        return f"{self.name}-{name}.json"

    def configured(self, hooks=None, args=("sleep", "10000"), **more):
        lists = {stage: [] for stage in STAGES}
        lists.update(hooks or {})
        config = self.guest.configuration(list(args), hooks=lists, annotations={"test": self.name}, **more)
        config["mounts"].append({"type": "none", "source": self.notes, "destination": "/notes", "options": ["rbind"]})
        return config

    # ---- lives ----

    def create(self, hooks=None, **more):
        process = self.guest.create(self.name, [], config=self.configured(hooks, **more), stdout=False, stderr=False)
        self.addCleanup(self.remove, process)
        return process

    def remove(self, process):
        with contextlib.suppress(grpc.RpcError):
            process.call("DeleteProcess")

    def end(self, process):
        process.kill(signal.SIGKILL)
        process.wait()
        process.delete()

    @contextlib.contextmanager
    def refused(self, code, *texts):
        with self.assertRaises(grpc.RpcError) as caught:
            yield caught
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for text in texts:
            self.assertIn(text, caught.exception.details())

    def note(self):
        return self.read_note(self.name)

    def assert_unknown(self):
        with self.refused(FAILURE.NOT_FOUND):
            self.guest.agent.extension.ContainerState(ext.ContainerStateRequest(container_id=self.name), timeout=SECONDS)

    def assert_gone(self):
        """The agent knows nothing of the container, and nothing with the mark runs."""
        self.assert_unknown()
        self.assert_nothing_runs()

    def running(self, mark=None):
        """{pid: command line} of what has the mark on its command line."""
        return {pid: line for pid, line in self.root_processes().items() if (mark or self.mark) in line}

    def kill_running(self):
        for pid in self.running():
            self.kill_root_process(pid)
        self.assert_nothing_runs()

    def assert_nothing_runs(self, mark=None):
        until(lambda: not self.running(mark), lambda: f"the end of {self.running(mark)}", 20)


class Folder(HookCases):
    """Hooks of hooks.d beside those of the configuration."""

    def test_they_come_after_the_configurations_in_the_order_of_their_names(self):
        for stage in STAGES:
            self.put_file(f"B{stage}", [stage], self.say(f"{stage}-B", stage))
            self.put_file(f"a{stage}", [stage], self.say(f"{stage}-a", stage))
        process = self.create({stage: [self.say(f"{stage}-own", stage)] for stage in STAGES})
        process.start()
        self.end(process)
        self.assertEqual(self.note().split(), [f"{stage}-{which}" for stage in STAGES for which in ("own", "a", "B")])

    def test_one_file_can_be_for_several_stages(self):
        self.put_file("x", ["poststop", "prestart"], self.say("here"))
        self.end(self.create())
        self.assertEqual(self.note().split(), ["here", "here"])

    def test_a_container_for_which_the_conditions_do_not_hold_has_none(self):
        hook = self.say("here")
        for number, when in enumerate(({"annotations": {"^test$": "^another$"}}, {"always": False},
                                       {"annotations": {"^test$": f"^{self.name}$"}, "commands": ["/bin/other$"]},
                                       {"annotations": {"^test$": f"^{self.name}$"}, "hasBindMounts": False})):
            text = {"version": "1.0.0", "hook": hook, "when": when, "stages": ["prestart"]}
            self.write_hook_file(f"{self.name}-{number}.json", json.dumps(text))
        text = {"version": "1.0.0", "hook": self.say("there"), "stages": ["prestart"],
                "when": {"annotations": {"^test$": f"^{self.name}$"}, "commands": ["^/bin/busybox$"], "hasBindMounts": True}}
        self.write_hook_file(f"{self.name}-9.json", json.dumps(text))
        self.end(self.create())
        self.assertEqual(self.note().split(), ["there"])

    def test_a_malformed_file_fails_the_create_and_leaves_nothing(self):
        text = {"version": "1.0.0", "hook": {"path": "/x"}, "when": {"always": True}, "stages": ["sometimes"]}
        self.write_hook_file(f"{self.name}.json", json.dumps(text))
        for _ in range(2):
            with self.refused(FAILURE.FAILED_PRECONDITION, f"{self.name}.json: /stages/0: sometimes is no stage of hooks"):
                self.create()
            self.assert_unknown()


class States(HookCases):
    def test_the_state_is_that_of_the_step(self):
        hooks = {stage: [self.shell(f"$B cat > $N-{stage}", stage)] for stage in STAGES}
        process = self.create(hooks)
        pid = process.start()
        self.end(process)
        statuses, pids, ids = {}, {}, set()
        for stage in STAGES:
            state = json.loads(self.read_note(f"{self.name}-{stage}"))
            statuses[stage], pids[stage] = state["status"], state.get("pid", 0)
            ids.add((state["id"], state["annotations"]["test"]))
            if stage not in ("createContainer", "startContainer"):
                self.assertTrue(state["bundle"].endswith(f"/{self.name}"), state)
        self.assertEqual(statuses, {"prestart": "created", "createRuntime": "created", "createContainer": "created",
                                    "startContainer": "created", "poststart": "running", "poststop": "stopped"})
        self.assertEqual(pids, {"prestart": pid, "createRuntime": pid, "createContainer": 1, "startContainer": 1,
                                "poststart": pid, "poststop": 0})
        self.assertEqual(ids, {(self.name, self.name)})

    def test_the_environment_is_the_hooks_own_and_the_folder_the_root(self):
        hook = {"path": self.busybox, "args": ["sh", "-c", f"{self.busybox} env > $A; pwd >> $A"],
                "env": [f"A={self.notes}/{self.name}"]}
        self.end(self.create({"createRuntime": [hook]}))
        lines = [line for line in self.note().splitlines() if not line.startswith(("PWD=", "SHLVL=", "_=", "PATH="))]
        self.assertEqual(lines, [f"A={self.notes}/{self.name}", "/"])

    def test_the_namespaces_are_the_roots_or_the_containers(self):
        kinds = ("mnt", "uts", "ipc", "pid")
        script = "; ".join(f"$B readlink /proc/self/ns/{kind} >> $N-$0" for kind in kinds)
        process = self.create({stage: [self.shell(script, stage)] for stage in STAGES})
        process.start()
        self.end(process)
        seen = {stage: self.read_note(f"{self.name}-{stage}").split() for stage in STAGES}
        for stage in ("createRuntime", "poststart", "poststop"):
            self.assertEqual(seen[stage], seen["prestart"], stage)
        self.assertEqual(seen["startContainer"], seen["createContainer"])
        self.assertEqual([a == b for a, b in zip(seen["prestart"], seen["startContainer"])], [False] * len(kinds))


class Failures(HookCases):
    """What a failing hook leaves, by the specification's lifecycle."""

    FAILING = "echo out; echo err >&2; exit 7"

    def hooks(self, stage, failing=None, source="configuration"):
        """Two hooks of each stage; the first of `stage` fails. `source`: whether that one is in hooks.d."""
        hooks = {one: [self.say(f"{one}-1", one), self.say(f"{one}-2", one)] for one in STAGES}
        failing = failing or self.say(f"{stage}-1", stage, self.FAILING)
        if source == "configuration":
            hooks[stage][0] = failing
            return hooks, f"{stage} hook #0"
        hooks[stage] = []
        name = self.put_file(f"1{stage}", [stage], failing)
        self.put_file(f"2{stage}", [stage], self.say(f"{stage}-2", stage))
        return hooks, f"{stage} hook {name}"

    def before(self, stage):
        return [f"{one}-{n}" for one in STAGES[:STAGES.index(stage)] for n in (1, 2)]

    def check_create(self, stage, source):
        hooks, says = self.hooks(stage, source=source)
        with self.refused(FAILURE.INTERNAL, says, "exit status 7, stdout: out, stderr: err"):
            self.create(hooks)
        self.assert_gone()
        self.assertEqual(self.note().split(), self.before(stage) + [f"{stage}-1", "poststop-1", "poststop-2"])

    def test_in_create_it_fails_leaves_nothing_and_the_poststop_hooks_run(self):
        name = self.name
        for source in ("configuration", "folder"):
            for stage in IN_CREATE:
                with self.subTest(stage=stage, source=source):
                    self.name = f"{name[:30]}-{source}-{stage}"
                    self.check_create(stage, source)

    def test_start_container_ends_the_container_and_start(self):
        name = self.name
        for source in ("configuration", "folder"):
            with self.subTest(source=source):
                self.name = f"{name[:30]}-{source}"
                hooks, says = self.hooks("startContainer", source=source)
                process = self.create(hooks, args=("sh", "-c", "echo program >> /notes/x"))
                waiting = self.guest.agent.context.WaitProcess.future(pb.WaitProcessRequest(**process.key), timeout=SECONDS)
                process.kill(0)  # on the same connection: the wait is there
                with self.refused(FAILURE.INTERNAL, says, "exit status 7"):
                    process.start()
                self.assertNotEqual(waiting.result().exitCode, 0)
                self.assert_gone()
                self.assertEqual(self.note().split(),
                                 self.before("startContainer") + ["startContainer-1", "poststop-1", "poststop-2"])

    def test_poststart_ends_the_container_since_version_1_3(self):
        hooks, says = self.hooks("poststart")
        process = self.create(hooks, args=("sleep", self.mark), ociVersion="1.3.0")
        waiting = self.guest.agent.context.WaitProcess.future(pb.WaitProcessRequest(**process.key), timeout=SECONDS)
        process.kill(0)
        with self.refused(FAILURE.INTERNAL, says, "exit status 7"):
            process.start()
        self.assertEqual(waiting.result().exitCode, 137)
        self.assert_gone()
        self.assertEqual(self.note().split(), self.before("poststart") + ["poststart-1", "poststop-1", "poststop-2"])

    def test_poststart_is_a_warning_until_version_1_2(self):
        hooks, _ = self.hooks("poststart")
        process = self.create(hooks, ociVersion="1.2.0")
        process.start()
        self.assertEqual(self.note().split(), self.before("poststart") + ["poststart-1", "poststart-2"])
        self.end(process)

    def test_poststop_is_a_warning_and_the_next_ones_run(self):
        hooks, _ = self.hooks("poststop")
        process = self.create(hooks)
        process.start()
        self.end(process)
        self.assert_gone()
        self.assertEqual(self.note().split(), [f"{stage}-{n}" for stage in STAGES for n in (1, 2)])

    def test_a_hook_that_is_not_there_fails_as_one_that_failed(self):
        for stage in IN_CREATE:
            with self.subTest(stage=stage):
                with self.refused(FAILURE.INTERNAL, f"{stage} hook #0", "/no/such/hook"):
                    self.create({stage: [{"path": "/no/such/hook"}]})
                self.assert_gone()


class Timeouts(HookCases):
    """A hook past its time is killed with all that it has started, whichever session and parent that has by now."""

    def slow(self, stage):
        # Children of three kinds: in the group, in a session of their own, and one whose parents have left it besides.
        sleep = f"exec $B sleep {self.mark}"
        script = (f"($B setsid $B sh -c 'exec {self.binary(stage)} sleep {self.mark}' & ) ; "
                  f"$B setsid $B sleep {self.mark} & $B sleep {self.mark} & {sleep}")
        return self.shell(script, stage, timeout=1)

    def binary(self, stage):
        return "/bin/busybox" if stage in INSIDE else self.busybox

    def test_in_create(self):
        name = self.name
        for stage in IN_CREATE:
            with self.subTest(stage=stage):
                self.name = f"{name}-{stage}"
                with self.refused(FAILURE.INTERNAL, f"{stage} hook #0", "ran past specified timeout of 1.0s"):
                    self.create({stage: [self.slow(stage)], "poststop": [self.say("poststop")]})
                self.assert_gone()
                self.assertEqual(self.note().split(), ["poststop"])

    def test_in_create_without_a_pid_namespace(self):
        name = self.name
        for stage in IN_CREATE:
            with self.subTest(stage=stage):
                self.name = f"{name}-{stage}"
                with self.refused(FAILURE.INTERNAL, f"{stage} hook #0", "ran past specified timeout of 1.0s"):
                    self.create({stage: [self.slow(stage)]}, namespaces=("mount", "uts", "ipc"))
                self.assert_gone()

    def test_in_start(self):
        for namespaces in (("pid", "mount"), ("mount",)):
            with self.subTest(namespaces=namespaces):
                process = self.create({"startContainer": [self.slow("startContainer")]}, namespaces=namespaces)
                with self.refused(FAILURE.INTERNAL, "startContainer hook #0", "ran past"):
                    process.start()
                self.assert_gone()

    def test_after_start_and_after_the_end(self):
        hooks = {"poststart": [self.slow("poststart")], "poststop": [self.slow("poststop"), self.say("next")]}
        process = self.create(hooks, ociVersion="1.3.0")
        with self.refused(FAILURE.INTERNAL, "poststart hook #0", "ran past"):
            process.start()
        self.assert_gone()
        self.assertEqual(self.note().split(), ["next"])

    def test_what_a_hook_in_time_leaves_behind_lives_on(self):
        hook = self.shell(f"$B setsid $B sleep {self.mark} >/dev/null 2>&1 </dev/null & ", timeout=30)
        self.end(self.create({"prestart": [hook]}))
        self.assertEqual(len(self.running()), 1)
        self.kill_running()


class Services(HookCases):
    def service(self, script, **more):
        """A service that runs a shell script, marked by what it sleeps."""
        return {**self.shell(f"{script}; exec $B sleep {self.mark}"), "service": {"name": "svc", **more}}

    READY = {"ready": {"fd": True}}

    def events(self):
        """The container's events so far and to come, up to its end."""
        request = ext.EventsRequest(container_id=self.name)
        return self.guest.agent.extension.Events(request, timeout=SECONDS)

    # ---- start-up ----

    def test_one_with_a_ready_descriptor_is_waited_for(self):
        service = self.service("$B sleep 1; echo ready >> $N; echo >&$ARCA_READY_FD", **self.READY)
        process = self.create({"prestart": [service], "createRuntime": [self.say("after")]})
        self.assertEqual(self.note().split(), ["ready", "after"])
        self.assertEqual(len(self.running()), 1)
        process.start()
        self.end(process)
        self.assert_gone()

    def test_one_with_a_socket_is_waited_for(self):
        path = f"{self.notes}/{self.mark}"
        service = {"path": self.listener, "args": ["listener", "unix", path], "service": {"ready": {"socket": path}}}
        self.check_listener(service)

    def test_one_with_a_port_is_waited_for(self):
        port = 10 ** 6 + int(self.mark) % 10 ** 6
        service = {"path": self.listener, "args": ["listener", *self.listen_words(port)],
                   "service": {"ready": {"port": port}}}
        self.check_listener(service)

    def check_listener(self, service):
        """One that is bound a second before it listens."""
        begin = time.monotonic()
        process = self.create({"createRuntime": [service]})
        self.assertGreater(time.monotonic() - begin, 1)
        self.assertEqual(len(self.running(service["args"][2])), 1)
        process.start()
        self.end(process)
        self.assert_nothing_runs(service["args"][2])

    def test_one_without_a_sign_is_ready_when_executed(self):
        process = self.create({"createRuntime": [self.service("$B sleep 0")]})
        self.end(process)
        self.assert_gone()
        with self.refused(FAILURE.INTERNAL, "createRuntime service svc: exec /no/such/program: no such file"):
            self.create({"createRuntime": [{"path": "/no/such/program", "service": {"name": "svc"}}]})
        self.assert_gone()

    def test_one_that_dies_in_its_start_up_fails_the_create_with_its_last_lines(self):
        script = "for i in $($B seq 30); do echo line-$i; done; echo last words >&2; exit 3"
        for _ in range(2):
            with self.refused(FAILURE.INTERNAL, "createRuntime service svc", "exit status 3 before it was ready",
                              "line-30 | last words"):
                self.create({"createRuntime": [self.service(script, **self.READY)], "poststop": [self.say("poststop")]})
            self.assert_gone()
        self.assertEqual(self.note().split(), ["poststop"] * 2)

    def test_one_that_is_not_ready_in_time_is_killed_with_its_children(self):
        for sign in ({"fd": True}, {"socket": f"{self.notes}/nobody"}, {"port": 999}):
            with self.subTest(sign=sign):
                service = self.service(f"echo waiting; $B setsid $B sleep {self.mark} & true", ready=sign)
                with self.refused(FAILURE.INTERNAL, "svc", "not ready within 1 s", "waiting"):
                    self.create({"createRuntime": [{**service, "timeout": 1}]})
                self.assert_gone()

    def test_what_has_been_started_is_stopped_when_creating_fails_later(self):
        hooks = {"prestart": [self.service("trap 'echo stopped >> $N; exit' TERM; echo >&3; while :; do $B sleep 0.02; done",
                                           **self.READY)],
                 "createRuntime": [self.shell("exit 1")], "poststop": [self.say("poststop")]}
        with self.refused(FAILURE.INTERNAL, "createRuntime hook #0"):
            self.create(hooks)
        self.assert_gone()
        self.assertEqual(self.note().split(), ["stopped", "poststop"])

    def test_a_create_that_is_given_up_can_be_deleted(self):
        for hook in (self.service("$B sleep 0", **self.READY), self.shell(f"exec $B sleep {self.mark}", timeout=50)):
            with self.subTest(service="service" in hook):
                config = json.dumps(self.configured({"createRuntime": [hook, self.say("never")]})).encode()
                request = pb.CreateProcessRequest(id=self.name, containerID=self.name, configuration=config)
                create = self.guest.agent.context.CreateProcess.future(request, timeout=SECONDS)
                until(self.running, "the hook runs")
                self.guest.agent.context.DeleteProcess(
                    pb.DeleteProcessRequest(id=self.name, containerID=self.name), timeout=SECONDS)
                self.assertEqual(create.exception(SECONDS).code(), FAILURE.INTERNAL)
                with self.refused(FAILURE.NOT_FOUND):
                    self.guest.agent.extension.ContainerState(ext.ContainerStateRequest(container_id=self.name),
                                                              timeout=SECONDS)
        self.kill_running()  # a plain hook that nobody waits for any more goes at its own time limit

    # ---- what it gets ----

    def test_its_environment_and_input(self):
        script = "$B cat > $N; echo >> $N; echo $ARCA_CONTAINER_ID >> $N; echo $PATH >> $N; echo $ARCA_READY_FD >> $N; echo >&3"
        self.end(self.create({"createRuntime": [self.service(script, **self.READY)]}))
        text = self.note()
        state, end = json.JSONDecoder().raw_decode(text)
        self.assertEqual((state["id"], state["status"]), (self.name, "created"))
        identity, path, fd = text[end:].split()
        self.assertEqual((identity, fd), (self.name, "3"))
        self.assertIn("/sbin", path)

    def test_its_network_is_the_containers_if_it_asks_and_else_the_roots(self):
        script = "$B readlink /proc/self/ns/net >> $N; $B readlink /proc/self/ns/mnt >> $N; echo >&3"
        inside = self.service(script, namespaces=["network"], **self.READY)
        outside = self.service(script, **{**self.READY, "name": "other"})
        process = self.create({"prestart": [self.shell("$B readlink /proc/self/ns/net >> $N; $B readlink /proc/self/ns/mnt >> $N"),
                                            inside, outside]}, namespaces=("pid", "mount", "network"))
        root_net, root_mnt, in_net, in_mnt, out_net, out_mnt = self.note().split()
        self.assertEqual((in_mnt, out_mnt, out_net), (root_mnt, root_mnt, root_net))
        self.assertNotEqual(in_net, root_net)
        self.end(process)

    def test_what_it_writes_goes_to_the_console_line_by_line(self):
        script = f"echo first {self.mark}; printf 'sec'; $B sleep 0.2; echo 'ond {self.mark}' >&2; echo >&3"
        self.end(self.create({"createRuntime": [self.service(script, **self.READY)]}))
        for line in (f"svc@{self.name}: first {self.mark}\n", f"svc@{self.name}: second {self.mark}\n"):
            self.assertIn(line, self.console())

    def test_one_that_writes_without_end_holds_nobody_up(self):
        process = self.create({"createRuntime": [self.service(f"echo >&3; while :; do echo {self.mark}; done", **self.READY)]})
        process.start()
        begin = time.monotonic()
        for number in range(5):
            self.guest.execute(self.name, f"e{number}", ["true"], stdout=False, stderr=False).start()
        self.assertLess(time.monotonic() - begin, 20)
        until(lambda: "lines left out" in self.console(), "some lines are left out")
        self.end(process)
        self.assert_gone()

    # ---- its end ----

    def test_it_is_stopped_by_its_signal_before_the_poststop_hooks(self):
        script = "trap 'echo stopped >> $N; exit' USR1; echo >&3; while :; do $B sleep 0.02; done"
        process = self.create({"createRuntime": [self.service(script, stopSignal="SIGUSR1", **self.READY)],
                               "poststop": [self.say("poststop")]})
        process.start()
        self.end(process)
        self.assertEqual(self.note().split(), ["stopped", "poststop"])

    def test_services_are_stopped_in_the_reverse_of_their_order(self):
        def one(name):
            script = f"trap 'echo {name} >> $N; exit' TERM; echo >&3; while :; do $B sleep 0.02; done"
            return self.service(script, name=name, **self.READY)
        process = self.create({"prestart": [one("a"), one("b")], "createRuntime": [one("c")]})
        process.start()
        self.end(process)
        self.assertEqual(self.note().split(), ["c", "b", "a"])

    def test_one_that_does_not_stop_is_killed_with_its_children(self):
        script = f"trap '' TERM; $B setsid $B sleep {self.mark} & echo >&3"
        process = self.create({"createRuntime": [self.service(script, stopTimeout=1, **self.READY)]})
        process.start()
        begin = time.monotonic()
        self.end(process)
        self.assertGreater(time.monotonic() - begin, 1)
        self.assert_gone()

    def test_one_that_is_stuck_keeps_nobody_from_working(self):
        process = self.create({"createRuntime": [self.service("echo >&3; kill -STOP $$", stopTimeout=1, **self.READY)]})
        process.start()
        done = self.guest.execute(self.name, "e1", ["echo", "works"])
        done.start()
        self.assertEqual(done.finish().out, b"works\n")
        self.end(process)
        self.assert_gone()

    def test_deleting_a_running_container_stops_it(self):
        process = self.create({"createRuntime": [self.service("echo >&3", **self.READY)]})
        process.start()
        process.call("DeleteProcess")
        self.assert_gone()

    def test_its_death_is_an_event_and_no_more_by_default(self):
        script = "echo >&3; while ! [ -e $N ]; do $B sleep 0.02; done; echo why >&2; exit 5"
        process = self.create({"createRuntime": [self.service(script, **self.READY)]})
        process.start()
        events = self.events()
        self.execute_shell(f"touch /notes/{self.name}")
        event = next(events)
        self.assertEqual((event.kind, event.service, event.exit_code, event.kills), (ext.Event.SERVICE_EXIT, "svc", 5, False))
        self.assertIn("exit status 5; its last lines: why", event.detail)
        self.execute_shell("true")  # the container lives
        # Who asks later hears of it too.
        later = self.events()
        self.assertEqual(next(later).kind, ext.Event.SERVICE_EXIT)
        process.kill(signal.SIGKILL)
        self.assertEqual([(one.kind, one.exit_code, one.detail) for one in events], [(ext.Event.EXIT, 137, "")])
        self.assertEqual([one.kind for one in later], [ext.Event.EXIT])
        process.delete()

    def execute_shell(self, script):
        done = self.guest.execute(self.name, f"e{time.time_ns()}", ["sh", "-c", script])
        done.start()
        self.assertEqual(done.finish().code, 0)

    def test_its_death_can_be_the_containers(self):
        script = "echo >&3; while ! [ -e $N ]; do $B sleep 0.02; done; exit 5"
        for namespaces in (("pid", "mount"), ("mount",)):
            with self.subTest(namespaces=namespaces):
                self.name += "x"
                child = ["sh", "-c", f"sleep {self.mark} & sleep {self.mark}"]
                process = self.create({"createRuntime": [self.service(script, onExit="kill", **self.READY)]}, args=child,
                                      namespaces=namespaces)
                process.start()
                events = self.events()
                with contextlib.suppress(grpc.RpcError):
                    self.execute_shell(f"touch /notes/{self.name}")
                reason = "its service svc has ended: exit status 5"
                self.assertEqual([(one.kind, one.exit_code, one.kills) for one in events],
                                 [(ext.Event.SERVICE_EXIT, 5, True), (ext.Event.EXIT, 137, False)])
                self.assertEqual(process.wait(), 137)
                state = self.guest.agent.extension.ContainerState(ext.ContainerStateRequest(container_id=self.name))
                self.assertEqual((state.status, state.end_reason), (ext.ContainerStateResponse.STOPPED, reason))
                self.assert_nothing_runs()
                process.delete()

    def test_its_death_before_start_ends_a_container_that_depends_on_it(self):
        script = "echo >&3; while ! [ -e $N ]; do $B sleep 0.02; done; exit 5"
        process = self.create({"createRuntime": [self.service(script, onExit="kill", **self.READY)]})
        events = self.events()
        self.write_note(self.name)
        self.assertEqual([one.kind for one in events], [ext.Event.SERVICE_EXIT, ext.Event.EXIT])
        with self.refused(FAILURE.FAILED_PRECONDITION, "its service svc has ended: exit status 5"):
            process.start()
        process.delete()
        # And one that is still being made.
        hooks = {"createRuntime": [self.service("echo >&3; exit 6", onExit="kill", **self.READY),
                                   self.shell(f"exec $B sleep {self.mark}", timeout=50)]}
        with self.refused(FAILURE.INTERNAL, "its service svc has ended: exit status 6"):
            self.create(hooks)
        self.kill_running()  # a plain hook that nobody waits for any more goes at its own time limit

    # ---- what is refused ----

    def test_services_of_one_name_and_of_other_stages_are_refused(self):
        one = self.service("echo >&3", **self.READY)
        with self.refused(FAILURE.INVALID_ARGUMENT, "two services have the name svc"):
            self.create({"prestart": [one], "createRuntime": [one]})
        for stage in STAGES[2:]:
            with self.subTest(stage=stage), self.refused(FAILURE.INVALID_ARGUMENT, f"/hooks/{stage}/0"):
                self.create({stage: [one]})
        self.assert_gone()

    def test_a_file_of_the_folder_can_be_one(self):
        name = self.put_file("svc", ["createRuntime"], self.shell(f"echo >&3; exec $B sleep {self.mark}"),
                             service={"name": "svc", "namespaces": ["network"], **self.READY})
        process = self.create()
        self.assertEqual(len(self.running()), 1)
        process.start()
        self.end(process)
        self.assert_gone()
        self.put_file("svc", ["createRuntime"], self.shell("exit 9"), service={"name": "svc", **self.READY})
        with self.refused(FAILURE.INTERNAL, f"createRuntime service svc ({name}): exit status 9"):
            self.create()
