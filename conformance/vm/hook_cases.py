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

    def assert_gone(self):
        """The agent knows nothing of the container, and nothing with the mark runs."""
        with self.refused(FAILURE.NOT_FOUND):
            self.guest.agent.extension.ContainerState(ext.ContainerStateRequest(container_id=self.name), timeout=SECONDS)
        self.assert_nothing_runs()

    def running(self, mark=None):
        return [line for line in self.root_processes() if (mark or self.mark) in line]

    def assert_nothing_runs(self, mark=None):
        until(lambda: not self.running(mark), lambda: f"the end of {self.running(mark)}", 20)


class Folder(HookCases):
    """Hooks of hooks.d."""

    def test_they_come_after_the_configurations_in_the_order_of_their_names(self):
        for stage in STAGES:
            self.put_file(f"B{stage}", [stage], self.say(f"{stage}-B", stage))
            self.put_file(f"a{stage}", [stage], self.say(f"{stage}-a", stage))
        process = self.create({stage: [self.say(f"{stage}-own", stage)] for stage in STAGES})
        process.start()
        self.end(process)
        self.assertEqual(self.note().split(), [f"{stage}-{which}" for stage in STAGES for which in ("own", "a", "B")])


class Services(HookCases):
    def service(self, script, **more):
        """A service that runs a shell script, marked by what it sleeps."""
        return {**self.shell(f"{script}; exec $B sleep {self.mark}"), "service": {"name": "svc", **more}}

    def test_one_with_a_ready_descriptor_is_waited_for(self):
        service = self.service("$B sleep 1; echo ready >> $N; echo >&$ARCA_READY_FD", ready={"fd": True})
        process = self.create({"prestart": [service], "createRuntime": [self.say("after")]})
        self.assertEqual(self.note().split(), ["ready", "after"])
        self.assertEqual(len(self.running()), 1)
        process.start()
        self.end(process)
        self.assert_gone()

    def test_one_that_dies_in_its_start_up_fails_the_create_with_its_last_lines(self):
        script = "for i in $($B seq 30); do echo line-$i; done; echo last words >&2; exit 3"
        for _ in range(2):
            with self.refused(FAILURE.INTERNAL, "createRuntime service svc", "exit status 3 before it was ready",
                              "line-30 | last words"):
                self.create({"createRuntime": [self.service(script, ready={"fd": True})]})
            self.assert_gone()

    def test_its_environment_and_input(self):
        script = "$B cat > $N; echo; echo $ARCA_CONTAINER_ID >> $N; echo $PATH >> $N; echo $ARCA_READY_FD >> $N; echo >&3"
        self.create({"createRuntime": [self.service(script, ready={"fd": True})]})
        text = self.note()
        state, end = json.JSONDecoder().raw_decode(text)
        self.assertEqual((state["id"], state["status"]), (self.name, "created"))
        identity, path, fd = text[end:].split()
        self.assertEqual((identity, fd), (self.name, "3"))
        self.assertIn("/sbin", path)

    def test_a_file_of_the_folder_can_be_one(self):
        self.put_file("svc", ["createRuntime"], self.shell(f"echo >&3; exec $B sleep {self.mark}"),
                      service={"name": "svc", "ready": {"fd": True}, "namespaces": ["network"]})
        process = self.create()
        self.assertEqual(len(self.running()), 1)
        process.start()
        self.end(process)
        self.assert_gone()
