#!/usr/bin/python3
"""The host against guests that are hostile, or somebody else's: `arca-runtime --sandbox connect=unix://DIR` with the
players of hostile_guest.py. No VM.

Those of whom a host has to wait for a deadline get one of a second. ARCA_BIN names the folder with the programs. Needs root and busybox-static.
"""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import hostile_guest
from machine import BIN, BUSYBOX, until

RUNTIME = BIN / "arca-runtime"
SOON = 20        # seconds: what ends a call at once may take so long on a loaded machine
AT_LAST = 60     # what has to wait for deadlines, several of
IMPATIENT = "1"  # seconds of such a deadline
MONITOR_KIB = 64 << 10
LINE = 8 << 10   # bytes of an error
AT_ONCE = ("closes goaway hangs-up resets cut:0 cut:9 dies-in:CreateProcess dies-in:StartProcess "
           "dies-in:WaitProcess fails-in:CreateProcess").split()
WRONG_ANSWERS = ("settings-flood headers-forever informational-forever window-ignored message-garbage message-length-lies "
                 "message-cut message-compressed messages-forever no-status odd-status large-status http-404 "
                 "terminal-text").split()
# Their container's program runs, and ends with 3 or with what they tell.
RUNNING = {"honest": (3, b"hello\n"), "double-dial": (3, b"hello\n"), "ends-early": (3, None),
           "keeps-streams": (5, b"hello\n"), "odd-codes:-1": (255, b"hello\n"), "odd-codes:2147483647": (255, b"hello\n"),
           "holds:KillProcess": (3, b"hello\n"), "fails-in:KillProcess": (3, b"hello\n"),
           "dies-in:KillProcess": (3, b"hello\n"), "dies-in:DeleteProcess": (3, b"hello\n")}
# Not to be run to its end in the foreground: the program has none.
ENDLESS = {"floods", "holds:WaitProcess"}


class World:
    """A bundle, a state root and a transport folder for one player."""

    numbers = itertools.count(1)  # worlds are made by several threads

    def __init__(self, top, rootfs, ignore=("network",), guest_seconds=None):
        self.environment = dict(os.environ, **({"ARCA_GUEST_SECONDS": guest_seconds} if guest_seconds else {}))
        number = next(World.numbers)
        self.id = f"{pathlib.Path(top).name}-{number}"
        self.folder = pathlib.Path(top) / str(number)
        for name in ("s", "bundle"):
            (self.folder / name).mkdir(parents=True)
        self.address = f"unix://{self.folder / 's'}"
        subprocess.run([RUNTIME, "spec"], cwd=self.folder / "bundle", check=True, stdin=subprocess.DEVNULL)
        self.config_file = self.folder / "bundle" / "config.json"
        self.config = json.loads(self.config_file.read_text(encoding="utf-8"))
        self.config["process"].update(terminal=False, args=["/bin/busybox", "sh", "-c", "echo hello; exit 3"])
        self.config["root"] = {"path": str(rootfs)}
        self.settings = self.folder / "settings.json"
        self.settings.write_text(json.dumps({"connect": {"paths": {str(rootfs): str(rootfs)}, "ignore": list(ignore)}}),
                                 encoding="ascii")

    def command(self, *words):
        return [str(RUNTIME), "--root", str(self.folder / "state"), "--configuration", str(self.settings),
                "--sandbox", f"connect={self.address}", *words]

    def call(self, *words, seconds=SOON):
        """(exit code, stdout, stderr, seconds) of a command of the runtime."""
        self.config_file.write_text(json.dumps(self.config), encoding="utf-8")
        begin = time.monotonic()
        # Files: what a container holds open delays nothing.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(self.command(*words), cwd=self.folder / "bundle", stdin=subprocess.DEVNULL,
                                  stdout=out, stderr=err, timeout=seconds, check=False, env=self.environment)
            out.seek(0)
            err.seek(0)
            return done.returncode, out.read(), err.read(), time.monotonic() - begin

    def monitors(self):
        """Pids of the sandbox's monitor."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
                if words and words[0].endswith(b"arca-monitor") and self.id.encode() in words:
                    found.append(int(entry.name))
        return found

    def monitor_kib(self):
        """The most that a monitor has had resident; 0 when it has gone."""
        peak = 0
        for pid in self.monitors():
            with contextlib.suppress(OSError):
                for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
                    if line.startswith("VmHWM:"):
                        peak = max(peak, int(line.split()[1]))
        return peak

    def left(self):
        """Containers of the state root."""
        state = self.folder / "state"
        return [path.name for path in state.iterdir() if not path.name.startswith("@")] if state.is_dir() else []


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class HostTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.top = tempfile.mkdtemp(prefix="arca-host-")
        cls.addClassCleanup(shutil.rmtree, cls.top, True)
        cls.rootfs = pathlib.Path(cls.top) / "rootfs"
        (cls.rootfs / "bin").mkdir(parents=True)
        shutil.copyfile(BUSYBOX, cls.rootfs / "bin" / "busybox")
        (cls.rootfs / "bin" / "busybox").chmod(0o755)

    def world(self, **options):
        return World(self.top, self.rootfs, **options)

    def check_text(self, text):
        """What goes to a terminal or a log: no control characters, a line each, and not without end."""
        for line in text.splitlines():
            self.assertLessEqual(len(line), LINE)
            self.assertTrue(line.startswith(b'time="') or b"level=" not in line, line)
        self.assertEqual([byte for byte in text if (byte < 32 and byte != 10) or byte == 127], [])

    def check_gone(self, world):
        """With its guest away a container can be deleted, and nothing stays."""
        until(lambda: world.call("delete", "--force", world.id)[0] == 0, f"{world.id} can be deleted", 60)
        self.assertEqual(world.left(), [])
        until(lambda: not world.monitors(), f"the end of the monitor of {world.id}", 60)

    def run_failing(self, name, seconds, **options):
        """`run` with a player fails as it should; gives its stderr."""
        world = self.world(**options)
        with hostile_guest.play(name, world.address):
            code, out, err, took = world.call("run", world.id, seconds=seconds)
            peak = world.monitor_kib()
        self.assertNotEqual(code, 0, name)
        # The program may have run before the connection was cut.
        self.assertIn(out, (b"", b"hello\n") if name.startswith("cut:") else (b"",), name)
        self.check_text(err)
        self.assertLessEqual(peak, MONITOR_KIB, name)
        self.check_gone(world)
        return err, took

    def each(self, names, function, at_once=4):
        """The function with each name; every failure is told with its name."""
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            calls = {name: pool.submit(function, name) for name in names}
        for name, call in calls.items():
            with self.subTest(name):
                call.result()

    def test_connections_that_end_fail_soon(self):
        def one(name):
            err, _ = self.run_failing(name, SOON)
            self.assertNotEqual(err, b"", name)
        self.each([name for name in AT_ONCE if name != "dies-in:WaitProcess"], one)
        self.run_failing("dies-in:WaitProcess", SOON)

    def test_wrong_answers_fail_soon_in_bounded_memory(self):
        def one(name):
            err, _ = self.run_failing(name, SOON)
            self.assertNotEqual(err, b"", name)
        self.each(WRONG_ANSWERS, one)

    def test_a_guest_that_runs_and_lies_about_it(self):
        def one(name):
            world = self.world()
            with hostile_guest.play(name, world.address):
                code, out, err, _ = world.call("run", world.id, seconds=60)
                wanted, text = RUNNING[name]
                self.assertEqual(code, wanted, (name, err))
                if text is not None:
                    self.assertEqual(out, text, name)
                self.check_text(err)
            self.check_gone(world)
        self.each(RUNNING, one)

    def test_commands_with_an_apple_like_guest(self):
        world = self.world()
        world.config["process"]["args"] = ["/bin/busybox", "sleep", "1000"]
        with hostile_guest.play("honest", world.address) as guest:
            self.assertEqual(world.call("create", world.id)[0], 0)
            started = [name for name, _ in guest.agent.calls if name == "startProcess"]
            self.assertEqual(started, [])  # its agent would run the program
            self.assertEqual(json.loads(world.call("state", world.id)[1])["status"], "created")
            self.assertEqual(world.call("start", world.id)[0], 0)
            self.assertEqual(json.loads(world.call("state", world.id)[1])["status"], "running")
            code, out, err, _ = world.call("exec", world.id, "/bin/busybox", "sh", "-c", "echo in; exit 4")
            self.assertEqual((code, out), (4, b"in\n"), err)
            self.assertEqual(world.call("kill", world.id, "KILL")[0], 0)
            until(lambda: json.loads(world.call("state", world.id)[1])["status"] == "stopped", "it is stopped", 20)
            code, _, err, _ = world.call("delete", world.id)
            self.assertEqual(code, 0, err)
            names = [name for name, _ in guest.agent.calls]
            self.assertIn("deleteProcess", names)
        self.check_gone(world)

    def test_what_an_apple_like_guest_would_leave_out_is_refused(self):
        for member, value, says in (("seccomp", {"defaultAction": "SCMP_ACT_ALLOW"}, b"seccomp"),
                                    ("devices", [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}], b"devices")):
            world = self.world()
            world.config["linux"][member] = value
            with hostile_guest.play("honest", world.address) as guest:
                code, _, err, _ = world.call("run", world.id)
                self.assertNotEqual(code, 0)
                self.assertIn(says, err)
                self.assertNotIn("createProcess", [name for name, _ in guest.agent.calls])
            self.check_gone(world)
        world = self.world(ignore=())
        with hostile_guest.play("honest", world.address):
            code, _, err, _ = world.call("run", world.id)
            self.assertNotEqual(code, 0)
            self.assertIn(b"network", err)
        self.check_gone(world)

    def test_an_endless_writer_is_ended_by_force(self):
        world = self.world()
        with hostile_guest.play("floods", world.address):
            world.config_file.write_text(json.dumps(world.config), encoding="utf-8")
            running = subprocess.Popen(world.command("run", "--bundle", str(world.folder / "bundle"), world.id),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.assertEqual(len(running.stdout.read(4 << 20)), 4 << 20)
            until(lambda: world.monitor_kib() > 0, "the monitor is there")
            self.assertLessEqual(world.monitor_kib(), MONITOR_KIB)  # it stops reading when its reader does
            world.call("delete", "--force", world.id, seconds=60)
        running.kill()
        running.wait()
        running.stdout.close()
        self.check_gone(world)

    def test_everybody_else_fails_at_last(self):
        known = {*AT_ONCE, *WRONG_ANSWERS, *RUNNING, *ENDLESS}
        # Nothing can be told from these answers.
        told = {"unknown-frames", "message-empty", "cut:500"}
        rest = [name for name in hostile_guest.all_variants()
                if name not in known | told and not name.startswith(("odd-", "no-dial", "late-dial", "fails-in", "holds:D"))]
        self.each(rest, lambda name: self.run_failing(name, AT_LAST, guest_seconds=IMPATIENT), at_once=8)


if __name__ == "__main__":
    unittest.main(verbosity=2)
