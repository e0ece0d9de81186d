"""Hooks in the guest, by the CLI: those of a bundle whose stages were moved there, and those of the guest's image.

What the agent itself does with hooks is test_hooks.py's; here are the commands around it, and the states that they leave.
"""

import functools
import json
import os
import pathlib
import sys

os.environ["ARCA_SANDBOX"] = "vm"
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import TOP, Case, main, read_text, until  # noqa: E402
import machine  # noqa: E402

MOVABLE = ("prestart", "createRuntime", "poststart", "poststop")


def image_hooks():
    """Files of hooks.d for the guest's image: which one a container gets is in its annotation."""
    def file(value, stages, script, **more):
        return {"version": "1.0.0", "hook": {"path": "/bin/busybox", "args": ["sh", "-c", f"B=/bin/busybox; {script}"]},
                "when": {"annotations": {"^image-hook$": f"^{value}$"}}, "stages": stages, **more}
    service = {"name": "svc", "ready": {"fd": True}}
    return {
        "10-dies.json": file("dies", ["createRuntime"], "echo some; echo last words >&2; exit 3", service=service),
        "20-start.json": file("start", ["startContainer"], "echo no >&2; exit 4"),
        "30-serves.json": file("serves", ["createRuntime"], "echo >&3; exec $B sleep 10000", service=service),
    }


@functools.lru_cache(maxsize=None)
def guest():
    """A kernel and an image of our own."""
    folder = pathlib.Path(TOP) / "guest"
    (folder / "hooks").mkdir(parents=True)
    for name, text in image_hooks().items():
        (folder / "hooks" / name).write_text(json.dumps(text), encoding="ascii")
    kernel = machine.guest_kernel.prepare(machine.guest_kernel.CONTAINER)
    image = machine.guest_image(kernel, folder, "--add", f"{machine.BUSYBOX}=/bin/busybox", "--hooks", folder / "hooks")
    return kernel.emulated, image


class GuestHooks(Case):
    def setUp(self):
        super().setUp()
        self.notes = os.path.join(self.dir, "notes")  # the container has it at /notes
        os.mkdir(self.notes)
        os.chmod(self.notes, 0o777)
        self.configuration = os.path.join(self.dir, "configuration.json")
        self.configure()

    def configure(self, guest_hooks=(), **more):
        kernel, image = guest()
        settings = {"vm": {"kernel": str(kernel), "initrd": str(image), "guest_hooks": list(guest_hooks)}, **more}
        with open(self.configuration, "w", encoding="ascii") as file:
            json.dump(settings, file)

    def command(self, *words, root=None):
        return super().command("--configuration", self.configuration, *words, root=root)

    def note(self, name="order"):
        return read_text(os.path.join(self.notes, name))

    def guest_shell(self, identity, script, **more):
        """A hook in the guest's root; $N is the folder of notes there."""
        share = f"/run/virtiofs/arca/{identity}/m1"
        return {"path": "/bin/busybox", "args": ["sh", "-c", f"B=/bin/busybox; N={share}; {script}"], **more}

    def host_shell(self, script, **more):
        return {"path": "/bin/sh", "args": ["sh", "-c", f"N={self.notes}; {script}"], **more}

    def hooked(self, hooks, *args, **changes):
        entry = {"destination": "/notes", "type": "bind", "source": self.notes, "options": ["bind", "rw"]}
        return self.bundle(*(args or ("sleep", "600")), mounts=[entry], writable=True, hooks=hooks, ociVersion="1.3.0", **changes)

    def service(self, identity, script, **more):
        """A service for createRuntime in the guest."""
        return {**self.guest_shell(identity, script), "service": {"name": "svc", "ready": {"fd": True}, **more}}

    def live_and_die(self, bundle, identity):
        c = self.create(bundle, identity=identity)
        self.ok("start", c)
        self.ok("kill", c, "KILL")
        self.wait_status(c, "stopped")
        self.ok("delete", c)


class Places(GuestHooks):
    def test_without_a_word_they_run_on_the_host(self):
        self.live_and_die(self.hooked({stage: [self.host_shell("uname -r > $N/order")] for stage in MOVABLE}), self.new_id())
        self.assertEqual(self.note(), os.uname().release + "\n")

    def test_the_configuration_moves_stages_and_each_runs_in_its_place(self):
        c = self.new_id()
        self.configure(guest_hooks=["createRuntime", "poststart", "poststop"])
        say = "echo \"$0 $($B uname -r)\" >> $N/order; $B cat > $N/$0"
        hooks = {stage: [self.guest_shell(c, say)] for stage in MOVABLE[1:]}
        for stage, (hook,) in hooks.items():
            hook["args"].append(stage)
        hooks["prestart"] = [self.host_shell("echo \"prestart $(uname -r)\" >> $N/order")]
        self.live_and_die(self.hooked(hooks), c)
        lines = dict(line.split() for line in self.note().splitlines())
        self.assertEqual(list(lines), list(MOVABLE))
        self.assertEqual(lines["prestart"], os.uname().release)
        self.assertEqual(len({lines[stage] for stage in MOVABLE[1:]} - {os.uname().release}), 1, lines)
        states = {stage: json.loads(self.note(stage)) for stage in MOVABLE[1:]}
        self.assertEqual({stage: state["status"] for stage, state in states.items()},
                         {"createRuntime": "created", "poststart": "running", "poststop": "stopped"})
        self.assertEqual({state["id"] for state in states.values()}, {c})
        self.assertEqual(states["createRuntime"]["pid"], states["poststart"]["pid"])
        self.assertEqual(states["poststop"].get("pid", 0), 0)

    def test_an_annotation_moves_stages_where_that_is_allowed(self):
        annotations = {"io.arca.hooks.guest": "createRuntime"}
        c = self.new_id()
        bundle = self.hooked({"createRuntime": [self.guest_shell(c, "$B uname -r > $N/order")]}, annotations=annotations)
        self.fails("create", "--bundle", bundle.path, c, says="io.arca.hooks.guest: not in allowed_annotations")
        self.assert_gone(c)
        self.configure(allowed_annotations=["io.arca.hooks.guest"])
        self.live_and_die(bundle, c)
        self.assertNotEqual(self.note(), os.uname().release + "\n")
        self.fails("--sandbox", "local", "create", "--bundle", bundle.path, c, says="the local sandbox has no guest")
        self.assert_gone(c)

    def test_a_service_on_the_host_is_refused(self):
        c = self.new_id()
        bundle = self.hooked({"createRuntime": [self.service(c, "echo >&3")]})
        for flags in ((), ("--sandbox", "local")):
            self.fails(*flags, "create", "--bundle", bundle.path, c,
                       says="hooks.createRuntime[0].service: this hook runs on the host")
            self.assert_gone(c)


class Failures(GuestHooks):
    def test_one_of_create_fails_it_and_all_poststop_hooks_run(self):
        c = self.new_id()
        self.configure(guest_hooks=["createRuntime"])
        hooks = {"createRuntime": [self.guest_shell(c, "echo no >&2; exit 4")],
                 "poststop": [self.host_shell("echo poststop >> $N/order")]}
        self.fails("create", "--bundle", self.hooked(hooks).path, c, says=["createRuntime hook #0", "exit status 4", "no"])
        self.assert_gone(c)
        self.assertEqual(self.note(), "poststop\n")

    def test_poststart_in_the_guest_ends_the_container(self):
        c = self.new_id()
        self.configure(guest_hooks=["poststart", "poststop"])
        hooks = {"poststart": [self.guest_shell(c, "exit 4")], "poststop": [self.guest_shell(c, "echo poststop >> $N/order")]}
        self.create(self.hooked(hooks), identity=c)
        self.fails("start", c, says=["poststart hook #0", "exit status 4"])
        self.assert_gone(c)
        self.assertEqual(self.note(), "poststop\n")

    def test_start_container_of_the_image_ends_the_container(self):
        hooks = {"poststop": [self.host_shell("echo poststop >> $N/order")]}
        c = self.create(self.hooked(hooks, annotations={"image-hook": "start"}))
        self.fails("start", c, says=["startContainer hook 20-start.json", "exit status 4"])
        self.assert_gone(c)
        self.assertEqual(self.note(), "poststop\n")

    def test_a_service_that_dies_in_its_start_up_fails_create_with_its_last_lines(self):
        c = self.new_id()
        self.fails("create", "--bundle", self.hooked({}, annotations={"image-hook": "dies"}).path, c,
                   says=["createRuntime service svc (10-dies.json)", "exit status 3 before it was ready", "some | last words"])
        self.assert_gone(c)


class Services(GuestHooks):
    def setUp(self):
        super().setUp()
        self.configure(guest_hooks=["createRuntime"])

    def test_its_death_is_an_event(self):
        c = self.new_id()
        script = "echo >&3; while ! [ -e $N/die ]; do $B sleep 0.05; done; echo why; exit 5"
        self.create(self.hooked({"createRuntime": [self.service(c, script)]}), identity=c)
        self.ok("start", c)
        out = os.path.join(self.dir, "events")
        with open(out, "wb") as file:
            events = self.spawn(self.command("events", "--interval", "1h", c), stdout=file)
        self.wait_text(out, '"type":"stats"')
        pathlib.Path(self.notes, "die").touch()
        self.wait_text(out, '"type":"service"')
        event, = [one for one in map(json.loads, read_text(out).splitlines()) if one["type"] == "service"]
        self.assertEqual(event, {"type": "service", "id": c, "data": {
            "name": "svc", "exitCode": 5, "reason": "exit status 5; its last lines: why", "kills": False}})
        self.assertEqual(self.exec(c, "echo", "lives").out, "lives\n")
        self.ok("kill", c, "KILL")
        until(lambda: events.poll() == 0, "the end of events")

    def test_a_container_that_goes_with_it_says_why(self):
        c = self.new_id()
        script = "echo >&3; while ! [ -e $N/die ]; do $B sleep 0.05; done; exit 5"
        bundle = self.hooked({"createRuntime": [self.service(c, script, onExit="kill")]}, "sh", "-c", "touch /notes/die; sleep 600")
        result = self.run_bundle(bundle, identity=c)
        self.assertEqual(result.code, 137)
        self.assertIn("was killed: its service svc has ended: exit status 5", result.err)
        self.assert_gone(c)

    def test_exec_does_not_wait_for_one_that_is_stuck(self):
        c = self.new_id()
        self.create(self.hooked({"createRuntime": [self.service(c, "echo >&3; kill -STOP $$", stopTimeout=1)]}), identity=c)
        self.ok("start", c)
        self.assertEqual(self.exec(c, "echo", "works").out, "works\n")
        self.ok("delete", "--force", c)
        self.assert_gone(c)

    def test_it_ends_with_its_container_and_not_with_the_machine(self):
        owner = self.create(self.bundle("sleep", "600", annotations={"io.kubernetes.cri.container-type": "sandbox"}))
        c = self.new_id()
        script = "trap 'echo stopped > $N/order; exit' TERM; echo >&3; while :; do $B sleep 0.05; done"
        annotations = {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": owner}
        self.create(self.hooked({"createRuntime": [self.service(c, script)]}, annotations=annotations), identity=c)
        self.ok("start", c)
        self.ok("delete", "--force", c)
        self.assertEqual(self.note(), "stopped\n")
        self.ok("state", owner)

    def test_one_of_the_image_serves_those_that_ask_for_it(self):
        script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep -c 'slee[p] 10000'"
        for value, count in (("serves", "1\n"), ("other", "0\n")):
            bundle = self.bundle("sh", "-c", script, annotations={"image-hook": value})
            bundle.config["linux"]["namespaces"] = [one for one in bundle.config["linux"]["namespaces"] if one["type"] != "pid"]
            bundle.write()
            self.assertEqual(self.run_bundle(bundle).out, count)


if __name__ == "__main__":
    main()
