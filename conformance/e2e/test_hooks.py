"""Hooks of all six kinds: when, where, as what and with which state each runs, and what a failure leaves."""

import json
import os
import secrets
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import (KIND, Case, all_processes, local_only, main, ours_only, process_state, read_text, unlike,  # noqa: E402
                       until)

IN_CREATE = ("prestart", "createRuntime", "createContainer")
KINDS = (*IN_CREATE, "startContainer", "poststart", "poststop")
VERSION = "1.3.0" if KIND == "arca" else "1.0.2-dev"  # crun 1.8.1 refuses later ones
IN_CONTAINER = ("startContainer",)  # its path is the container's; all others are the host's


def new_mark():
    """A number of seconds that no other process sleeps."""
    return str(10 ** 8 + secrets.randbelow(10 ** 8))


def shell(script, kind="prestart", **more):
    return {"path": "/bin/sh", "args": ["sh", "-c", script, kind], **more}


class HookCase(Case):
    def setUp(self):
        super().setUp()
        self.notes = os.path.join(self.dir, "notes")  # of hooks; the container sees the folder at /notes
        os.mkdir(self.notes)
        os.chmod(self.notes, 0o777)

    def note(self, name):
        return read_text(os.path.join(self.notes, name))

    def place(self, kind):
        return "/notes" if kind in IN_CONTAINER else self.notes

    def hooked(self, hooks, *args, version=VERSION, **changes):
        entry = {"destination": "/notes", "type": "bind", "source": self.notes, "options": ["bind", "rw"]}
        return self.bundle(*(args or ("sleep", "600")), mounts=[entry], writable=True, hooks=hooks,
                           ociVersion=version, **changes)

    def say(self, kind, word, then="true"):
        """A hook that adds a word to the file `order`."""
        return shell(f"echo {word} >> {self.place(kind)}/order; {then}", kind)

    def live_and_die(self, bundle):
        """create, start, the program's end, delete; returns the id and the init's pid."""
        c = self.create(bundle)
        pid = self.state(c)["pid"]
        self.ok("start", c)
        self.ok("kill", c, "KILL")
        self.wait_status(c, "stopped")
        self.ok("delete", c)
        return c, pid

    def assert_nothing_runs(self, *words):
        def gone():
            self.reap()
            return not [pid for pid in all_processes() if process_state(pid)[0] not in ("", "Z") and
                        all(word in read_text(f"/proc/{pid}/cmdline") for word in words)]
        until(gone, f"no process of {words}")


class Order(HookCase):
    @unlike("runc", "1.1.5 runs poststart hooks before the program")
    @unlike("crun", "1.8.1 runs poststart hooks beside those of startContainer")
    def test_each_kind_runs_in_its_place_and_each_list_in_order(self):
        hooks = {kind: [self.say(kind, f"{kind}-1"), self.say(kind, f"{kind}-2")] for kind in KINDS}
        bundle = self.hooked(hooks, "sh", "-c", "echo program >> /notes/order; exec sleep 600")
        c = self.create(bundle)
        created = [f"{kind}-{n}" for kind in IN_CREATE for n in (1, 2)]
        self.assertEqual(self.note("order").split(), created)
        self.ok("start", c)
        until(lambda: "program" in self.note("order"), "the program writes")
        # The program and the poststart hooks run at the same time.
        started = self.note("order").split()[len(created):]
        self.assertEqual(started[:2], ["startContainer-1", "startContainer-2"])
        self.assertEqual([word for word in started[2:] if word != "program"], ["poststart-1", "poststart-2"])
        self.ok("kill", c, "KILL")
        self.wait_status(c, "stopped")
        self.assertNotIn("poststop", self.note("order"))
        self.ok("delete", c)
        self.assertEqual(self.note("order").split()[-2:], ["poststop-1", "poststop-2"])

    @unlike("runc", "1.1.5 runs poststart hooks before the program")
    def test_run_in_the_foreground_runs_all_of_them(self):
        hooks = {kind: [self.say(kind, kind)] for kind in KINDS}
        self.assertEqual(self.run_bundle(self.hooked(hooks, "sh", "-c", "sleep 0.2; exit 3")).code, 3)
        self.assertEqual(self.note("order").split(), list(KINDS))

    @unlike("runc", "1.1.5 runs poststart hooks before the program")
    def test_poststart_comes_when_the_program_has_been_executed(self):
        script = f"cat /proc/$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')/cmdline > {self.notes}/cmdline"
        self.start_hooked({"poststart": [shell(script)]})
        self.assertEqual(self.note("cmdline").split("\0")[:2], ["sleep", "600"])

    def start_hooked(self, hooks, **changes):
        c = self.create(self.hooked(hooks, **changes))
        self.ok("start", c)
        return c

    def test_no_hook_of_the_container_is_run_by_an_exec(self):
        hooks = {kind: [self.say(kind, kind)] for kind in KINDS}
        c = self.start_hooked(hooks)
        before = self.note("order")
        self.assertEqual(self.exec(c, "true").code, 0)
        self.assertEqual(self.note("order"), before)


class State(HookCase):
    """What each hook reads on stdin."""

    STATUSES = {"prestart": "created", "createRuntime": "created", "createContainer": "created",
                "startContainer": "created", "poststart": "running", "poststop": "stopped"}

    def setUp(self):
        super().setUp()
        hooks = {kind: [shell(f"cat > {self.place(kind)}/{kind}; echo more | cat > /dev/null")] for kind in KINDS}
        self.made = self.hooked(hooks, annotations={"dev.example/a": "one\n\"two\"", "b": ""})
        self.c, self.pid = self.live_and_die(self.made)
        self.states = {kind: json.loads(self.note(kind)) for kind in KINDS}

    @unlike("crun", "1.8.1 gives another version, and another bundle inside")
    def test_id_bundle_version_and_annotations_are_the_containers(self):
        for kind, state in self.states.items():
            with self.subTest(kind=kind):
                self.assertEqual(state["id"], self.c)
                self.assertEqual(state["bundle"], self.made.path)
                self.assertEqual(state["ociVersion"], VERSION)
                self.assertEqual(state["annotations"], {"dev.example/a": "one\n\"two\"", "b": ""})

    @unlike("runc", "1.1.5 says creating before start")
    @unlike("crun", "1.8.1 says starting in startContainer")
    def test_the_status_is_that_of_the_step(self):
        self.assertEqual({kind: state["status"] for kind, state in self.states.items()}, self.STATUSES)

    @local_only("the pid of a hook in the guest is the guest's")
    @unlike("crun", "1.8.1 gives 0 inside of the container")
    def test_the_pid_is_the_inits_as_the_hook_sees_it(self):
        for kind in ("prestart", "createRuntime", "poststart"):
            self.assertEqual(self.states[kind]["pid"], self.pid, kind)
        for kind in ("createContainer", "startContainer"):
            self.assertEqual(self.states[kind]["pid"], 1, kind)
        self.assertEqual(self.states["poststop"].get("pid", 0), 0)


class Surroundings(HookCase):
    @unlike("runc", "1.1.5 runs startContainer hooks in another folder")
    @unlike("crun", "1.8.1 runs createContainer hooks in the program's folder")
    def test_the_folder_is_the_bundle_the_rootfs_or_the_programs(self):
        hooks = {kind: [shell(f"pwd > {self.place(kind)}/{kind}")] for kind in KINDS}
        bundle = self.hooked(hooks, process={"cwd": "/srv"})
        self.live_and_die(bundle)
        for kind in ("prestart", "createRuntime", "poststart", "poststop"):
            self.assertEqual(self.note(kind).strip(), bundle.path, kind)
        self.assertTrue(self.note("createContainer").strip().endswith("rootfs"), self.note("createContainer"))
        self.assertEqual(self.note("startContainer").strip(), "/srv")

    @local_only("hooks for the container run in the guest")
    def test_the_namespaces_are_the_runtimes_or_the_containers(self):
        kinds = ("uts", "mnt", "ipc", "pid")
        script = "; ".join(f"readlink /proc/self/ns/{ns}" for ns in kinds)
        hooks = {kind: [shell(f"({script}) > {self.place(kind)}/{kind}")] for kind in KINDS}
        c = self.create(self.hooked(hooks))
        self.ok("start", c)
        inside = [os.readlink(f"/proc/{self.state(c)['pid']}/ns/{ns}") for ns in kinds]
        self.ok("delete", "--force", c)
        outside = [os.readlink(f"/proc/self/ns/{ns}") for ns in kinds]
        for kind in KINDS:
            wanted = inside if kind in ("createContainer", "startContainer") else outside
            self.assertEqual(self.note(kind).split(), wanted, kind)

    @unlike("crun", "1.8.1 runs createContainer hooks in the program's folder")
    def test_create_container_hooks_see_the_mounts_and_still_the_host(self):
        script = f"test -e notes && test -d proc/1 && echo ok > {self.notes}/seen"
        self.live_and_die(self.hooked({"createContainer": [shell(script)]}))
        self.assertEqual(self.note("seen"), "ok\n")

    @unlike("crun", "1.8.1 runs createContainer hooks in the program's folder")
    def test_what_a_create_container_hook_mounts_is_in_the_container(self):
        script = "/bin/busybox mount -t tmpfs -o size=4096 hooked mnt"
        bundle = self.hooked({"createContainer": [shell(script)]}, "sh", "-c", "grep ' /mnt ' /proc/self/mountinfo")
        os.mkdir(bundle.file("mnt"))
        self.assertIn("hooked", self.run_bundle(bundle).out)
        self.assertNotIn("hooked", read_text("/proc/self/mountinfo"))

    def test_a_runtime_hook_can_reach_the_containers_namespaces_by_the_pid(self):
        script = ("p=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); "
                  f"nsenter -t $p -u hostname by-hook && readlink /proc/$p/ns/net > {self.notes}/net")
        hooks = {"createRuntime": [shell(script)]}
        c = self.create(self.hooked(hooks, hostname="by-config"))
        self.assertEqual(self.note("net").strip(), os.readlink(f"/proc/{self.state(c)['pid']}/ns/net"))

    def test_the_environment_is_the_hooks_own(self):
        self.check_env({"env": ["A=1", "B=x=y"]}, ["A=1", "B=x=y"])

    @unlike("runc", "1.1.5 takes an empty one for an absent one")
    @unlike("crun", "1.8.1 takes an empty one for an absent one")
    def test_an_empty_environment_is_empty(self):
        self.check_env({"env": []}, [])

    def check_env(self, more, wanted):
        kinds = ("createRuntime", "createContainer", "startContainer", "poststop")
        # Without a shell: that sets variables of its own.
        self.live_and_die(self.hooked({kind: [{"path": "/bin/cp", "args": ["cp", "/proc/self/environ",
                                                                          f"{self.place(kind)}/{kind}"], **more}]
                                       for kind in kinds}))
        for kind in kinds:
            self.assertEqual([word for word in self.note(kind).split("\0") if word], wanted, kind)

    def test_args_are_given_as_they_are_with_the_first_as_the_name(self):
        hook = {"path": "/bin/sh", "args": ["odd name", "-c", f'printf "%s|" "$0" "$@" > {self.notes}/args',
                                            "", "b c", "$HOME"]}
        self.live_and_die(self.hooked({"prestart": [hook]}))
        self.assertEqual(self.note("args"), "|b c|$HOME|")

    def test_only_stdio_is_open(self):
        script = f"ls /proc/self/fd > {self.notes}/fds"
        self.live_and_die(self.hooked({kind: [shell(script)] for kind in ("prestart", "poststart", "poststop")}))
        self.assertEqual(self.note("fds").split(), ["0", "1", "2", "3"])  # 3 is the folder that ls reads

    @ours_only("the others ignore it or take it for no limit")
    def test_wrong_hooks_are_refused(self):
        for wrong, says in (({"path": "bin/sh"}, "absolute"), ({"args": ["x"]}, "path"),
                            ({"path": "/bin/true", "timeout": 0}, "timeout"),
                            ({"path": "/bin/true", "timeout": -1}, "timeout"),
                            ({"path": "/bin/true", "env": ["NOVALUE"]}, "NAME=VALUE")):
            with self.subTest(hook=wrong):
                self.fails("create", "--bundle", self.hooked({"poststop": [wrong]}).path, self.new_id(), says=says)


class Failure(HookCase):
    """A failing hook: which command fails, what is said, what is left, which hooks run nevertheless."""

    FAILING = "echo out; echo err >&2; exit 7"

    def hooks(self, kind, failing=None):
        """Two hooks of every kind; the first of `kind` fails."""
        hooks = {one: [self.say(one, f"{one}-1"), self.say(one, f"{one}-2")] for one in KINDS}
        hooks[kind][0] = failing or self.say(kind, f"{kind}-1", self.FAILING)
        return hooks

    def check_create(self, kind):
        c = self.new_id()
        result = self.fails("create", "--bundle", self.hooked(self.hooks(kind)).path, c,
                            says=[f"{kind} hook #0", "exit status 7"])
        self.assert_gone(c)
        return result

    def words_before(self, kind):
        return [f"{one}-{n}" for one in KINDS[:KINDS.index(kind)] for n in (1, 2)]

    @unlike("runc", "1.1.5 runs no poststop hooks after a create that failed")
    @unlike("crun", "1.8.1 exits with 255 and runs no poststop hooks")
    def test_in_create_it_fails_leaves_nothing_and_the_poststop_hooks_run(self):
        for kind in IN_CREATE:
            with self.subTest(kind=kind):
                if os.path.exists(os.path.join(self.notes, "order")):
                    os.unlink(os.path.join(self.notes, "order"))
                self.check_create(kind)
                self.assertEqual(self.note("order").split(),
                                 self.words_before(kind) + [f"{kind}-1", "poststop-1", "poststop-2"])

    @ours_only("the wording is our own")
    def test_the_message_has_what_the_hook_wrote(self):
        result = self.check_create("createRuntime")
        self.assertIn("stdout: out, stderr: err", result.err)

    @unlike("runc", "1.1.5 leaves the container")
    @unlike("crun", "1.8.1 leaves the container")
    def test_start_container_ends_the_container_and_start(self):
        c = self.create(self.hooked(self.hooks("startContainer"), "sh", "-c", "echo program >> /notes/order"))
        self.fails("start", c, says="startContainer hook #0")
        self.assert_gone(c)
        self.assertEqual(self.note("order").split(), self.words_before("startContainer") +
                         ["startContainer-1", "poststop-1", "poststop-2"])

    @unlike("runc", "1.1.5 leaves the container")
    @unlike("crun", "1.8.1 follows the older rule")
    def test_poststart_ends_the_container_since_version_1_3(self):
        c = self.create(self.hooked(self.hooks("poststart")))
        pid = self.state(c)["pid"]
        self.fails("start", c, says=["poststart hook #0", "exit status 7"])
        self.assert_gone(c)
        self.processes_gone([pid])
        self.assertEqual(self.note("order").split(), self.words_before("poststart") +
                         ["poststart-1", "poststop-1", "poststop-2"])

    @unlike("runc", "ends the container whatever the version")
    @unlike("crun", "1.8.1 warns of nothing")
    def test_poststart_is_a_warning_until_version_1_2(self):
        for version in ("1.0.0", "1.0.2-dev", "1.2.1"):
            with self.subTest(version=version):
                log = os.path.join(self.dir, f"log-{version}")
                c = self.create(self.hooked(self.hooks("poststart"), version=version))
                self.ok("--log", log, "start", c)
                self.assertEqual(self.state(c)["status"], "running")
                self.assertEqual(self.note("order").split()[-2:], ["poststart-1", "poststart-2"])
                self.assertIn("poststart hook #0", read_text(log))
                self.ok("delete", "--force", c)

    @unlike("runc", "1.1.5 lets delete fail")
    @unlike("crun", "1.8.1 warns of nothing")
    def test_poststop_is_a_warning_and_the_next_ones_run(self):
        log = os.path.join(self.dir, "log")
        c = self.create(self.hooked(self.hooks("poststop")))
        self.ok("--log", log, "delete", "--force", c)
        self.assertEqual(self.note("order").split()[-2:], ["poststop-1", "poststop-2"])
        self.assertIn("poststop hook #0", read_text(log))
        self.assert_gone(c)

    @unlike("crun", "1.8.1 leaves the container")
    @unlike("runc", "1.1.5 runs no poststop hooks")
    def test_run_fails_as_its_steps_do(self):
        for kind in KINDS[:-1]:
            with self.subTest(kind=kind):
                c = self.new_id()
                result = self.run_bundle(self.hooked(self.hooks(kind)), identity=c)
                self.assertEqual(result.code, 1, result)
                self.assertIn(f"{kind} hook #0", result.err)
                self.assert_gone(c)
                self.assertEqual(self.note("order").split()[-2:], ["poststop-1", "poststop-2"])

    @unlike("crun", "1.8.1 exits with 255")
    def test_a_hook_that_cannot_be_executed_fails_as_one_that_failed(self):
        for kind in IN_CREATE:
            with self.subTest(kind=kind):
                c = self.new_id()
                self.fails("create", "--bundle", self.hooked(self.hooks(kind, {"path": "/no/such/hook"})).path, c,
                           says="/no/such/hook")
                self.assert_gone(c)

    @unlike("crun", "1.8.1 dies of SIGPIPE")
    def test_a_hook_that_does_not_read_its_input_is_no_failure(self):
        big = {"big": "x" * 200000}
        self.live_and_die(self.hooked({kind: [{"path": "/bin/true"}] for kind in KINDS}, annotations=big))

    @unlike("crun", "1.8.1 exits with 255")
    def test_a_killed_hook_says_by_what(self):
        failing = shell("kill -KILL $$")
        result = self.rt("create", "--bundle", self.hooked({"prestart": [failing]}).path, self.new_id())
        self.assertEqual(result.code, 1)
        self.assertRegex(result.err, "(?i)kill")


class Timeout(HookCase):
    """A hook past its time is killed with its children."""

    def slow(self, mark):
        return shell(f"sleep {mark} & sleep {mark}", timeout=1)

    @unlike("crun", "1.8.1 kills the hook alone")
    @unlike("runc", "1.1.5 kills the hook alone")
    def test_in_create(self):
        for kind in IN_CREATE:
            with self.subTest(kind=kind):
                mark, c = new_mark(), self.new_id()
                self.fails("create", "--bundle", self.hooked({kind: [self.slow(mark)]}).path, c,
                           says=[f"{kind} hook #0", "ran past", "1.0s"])
                self.assert_gone(c)
                self.assert_nothing_runs("sleep", mark)

    @ours_only("runc and crun leave the container")
    def test_in_start(self):
        mark = new_mark()
        c = self.create(self.hooked({"startContainer": [self.slow(mark)]}))
        self.fails("start", c, says=["startContainer hook #0", "ran past"])
        self.assert_gone(c)
        self.assert_nothing_runs("sleep", mark)

    @unlike("crun", "1.8.1 kills the hook alone")
    @unlike("runc", "1.1.5 lets delete fail")
    def test_in_delete_it_is_a_warning(self):
        mark = new_mark()
        c = self.create(self.hooked({"poststop": [self.slow(mark), self.say("poststop", "next")]}))
        self.ok("delete", "--force", c)
        self.assertEqual(self.note("order"), "next\n")
        self.assert_gone(c)
        self.assert_nothing_runs("sleep", mark)

    def test_one_in_time_is_left_alone(self):
        self.live_and_die(self.hooked({"prestart": [shell(f"sleep 0.2; echo ok > {self.notes}/ok", timeout=30)]}))
        self.assertEqual(self.note("ok"), "ok\n")


class Interrupted(HookCase):
    @local_only("the command is looked for by its pid")
    @unlike("runc", "1.1.5 leaves the hook and the container")
    @unlike("crun", "1.8.1 leaves the hook and the container")
    def test_a_create_that_is_killed_in_a_hook_can_be_deleted(self):
        fifo = os.path.join(self.dir, "fifo")
        os.mkfifo(fifo)
        mark = new_mark()
        c = self.new_id()
        self.ids.append(c)
        bundle = self.hooked({"createRuntime": [shell(f"echo here > {fifo}; exec sleep {mark}")],
                              "poststop": [self.say("poststop", "stopped")]})
        process = self.spawn(self.command("create", "--bundle", bundle.path, c))
        with open(fifo, encoding="ascii") as file:
            self.assertEqual(file.read(), "here\n")
        self.assertEqual(self.state(c)["status"], "creating")
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pid in all_processes():  # the hook itself is nobody's but its caller's
            if mark in read_text(f"/proc/{pid}/cmdline") and process_state(pid)[0] != "Z":
                os.kill(pid, signal.SIGKILL)
        self.ok("delete", "--force", c)
        self.assert_gone(c)
        self.assertEqual(self.note("order"), "stopped\n")


if __name__ == "__main__":
    main()
