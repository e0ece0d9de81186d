"""`--sandbox connect=ADDRESS`: a guest of others, an Apple-like one, and hostile ones.

The players of conformance/wire stand in for the guest; a container's root file system is where it is on this host.
"""

import json
import os
import re
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "wire"), HERE]
from arca_test import Case, all_processes, environment, main, read_text, until  # noqa: E402

import hostile_guest  # noqa: E402

LIMIT = 5         # of a call to a guest that means well
HOSTILE_LIMIT = 1  # what is wrong is a matter of the bytes that come, not of how long they take
PATIENCE = 40  # several calls may each run into their deadline
# Nothing such a host does waits without end for a stream, or believes that a code of 256 is a 0 it was not.
TAKEN = ("honest", "unknown-frames", "double-dial", "keeps-streams", "ends-early", "late-dial", "odd-codes", "odd-pids",
         "floods", "no-dial", "cut", "early-copy", "slow-copy", "holds", "dies-in", "fails-in", "message-empty")
HYBRID = ("no-ok", "bad-ok", "long-ok", "late-ok")


class Connect(Case):
    def setUp(self):
        super().setUp()
        self.guest_dir = os.path.join(self.dir, "g")
        os.mkdir(self.guest_dir, 0o700)
        self.configuration = os.path.join(self.dir, "configuration.json")
        self.configure()

    def configure(self, *ignore):
        with open(self.configuration, "w", encoding="ascii") as file:
            json.dump({"connect": {"paths": {"/": "/"}, "ignore": list(ignore)}}, file)

    def address(self, name):
        scheme = "hvsock" if name in HYBRID else "unix"
        return f"{scheme}://{self.guest_dir}" + ("/v" if scheme == "hvsock" else "")

    def plain(self, *args, **changes):
        """What such a guest can do: no network namespace, no device rules."""
        linux = {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount")], "resources": {}}
        return self.bundle(*args, **{"linux": linux, **changes}, writable=True)

    limit = LIMIT

    def connected(self, name, *words, **options):
        options.setdefault("env", environment(ARCA_GUEST_SECONDS=str(self.limit)))
        # Whatever the guest sends: who needs more memory than this fails.
        return self.call(["prlimit", f"--as={256 << 20}", *self.command("--sandbox", "connect=" + self.address(name), "--configuration",
                                        self.configuration), *words], seconds=PATIENCE, **options)

    def helpers(self):
        return [pid for pid in all_processes() - self.before.processes
                if re.match(r"arca-(monitor|standin)", os.path.basename(read_text(f"/proc/{pid}/cmdline").split("\0")[0]))]


class AppleLike(Connect):
    def test_a_bundle_runs_with_its_stdio_and_exit_code(self):
        with hostile_guest.play("honest", self.address("honest")) as guest:
            result = self.connected("honest", "run", "--bundle",
                                    self.plain("sh", "-c", "read x; echo out $x; echo err >&2; exit 9").path,
                                    self.new_id(), stdin=b"in\n")
            self.assertEqual((result.code, result.out, result.err), (9, "out in\n", "err\n"), result)
            names = [name for name, _ in guest.agent.calls if name.endswith("Process")]
        self.assertEqual(sorted(names), ["createProcess", "deleteProcess", "startProcess", "waitProcess"])
        self.assertEqual((names[0], names[-1]), ("createProcess", "deleteProcess"))

    def test_created_is_reported_though_such_an_agent_makes_nothing_before_start(self):
        with hostile_guest.play("honest", self.address("honest")):
            c = self.new_id()
            self.ids.append(c)
            self.assertEqual(self.connected("honest", "create", "--bundle", self.plain("true").path, c).code, 0)
            self.assertEqual(self.state(c)["status"], "created")
            pid = self.state(c)["pid"]
            self.ok("start", c)
            self.assertEqual(os.waitstatus_to_exitcode(self.wait_reaped(pid)), 0)
            self.assertEqual(self.state(c)["status"], "stopped")
            self.ok("delete", c)

    def test_what_it_would_silently_leave_out_is_refused_by_name(self):
        cases = [({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}, "linux.seccomp", "seccomp"),
                 ({"hooks": {"createContainer": [{"path": "/bin/true"}]}}, "hooks.createContainer", "hooks"),
                 ({"linux": {"namespaces": [{"type": "network"}, {"type": "mount"}, {"type": "pid"}, {"type": "uts"}]}},
                  "network namespace", "network"),
                 ({"linux": {"devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]}}, "linux.devices",
                  "devices"),
                 ({"linux": {"resources": {"unified": {"memory.high": "max"}}}}, "linux.resources", "resources")]
        for changes, says, feature in cases:
            with self.subTest(feature=feature), hostile_guest.play("honest", self.address("honest")):
                if "linux" in changes:
                    changes["linux"].setdefault("namespaces", [{"type": name} for name in ("pid", "mount", "uts")])
                    changes["linux"].setdefault("resources", {})
                bundle = self.plain("true", **changes)
                self.configure()
                refused = self.connected("honest", "run", "--bundle", bundle.path, self.new_id())
                self.assertEqual(refused.code, 1, refused)
                self.assertIn(says, refused.err)
                self.assertIn(feature, refused.err.partition("connect.ignore")[2])
                self.configure(feature)
                allowed = self.connected("honest", "run", "--bundle", bundle.path, self.new_id())
                self.assertEqual(allowed.code, 0, allowed)

    def test_a_path_that_the_guest_does_not_have_is_an_error(self):
        with open(self.configuration, "w", encoding="ascii") as file:
            json.dump({"connect": {"paths": {"/srv": "/x"}}}, file)
        with hostile_guest.play("honest", self.address("honest")):
            result = self.connected("honest", "run", "--bundle", self.plain("true").path, self.new_id())
            self.assertEqual(result.code, 1)
            self.assertIn("no path of the guest is known", result.err)


class Hostile(Connect):
    limit = HOSTILE_LIMIT

    def check(self, name):
        with hostile_guest.play(name, self.address(name)):
            result = self.connected(name, "run", "--bundle", self.plain("true").path, self.new_id())
            self.assertNotEqual(result.code, 0, result)
            lines = result.err.splitlines()
            self.assertTrue(1 <= len(lines) <= 3, result)
            for line in lines:
                self.assertLess(len(line), 2000, "a line of a sensible length")
                self.assertIsNone(re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line), "no control characters")
            until(lambda: not self.helpers(), lambda: f"the end of {self.helpers()}", 30)


def _add(name):
    setattr(Hostile, "test_" + name.replace("-", "_"), lambda self: self.check(name))


for _name in hostile_guest.PLAYERS:
    if _name not in TAKEN:
        _add(_name)
for _name in ("dies-in:CreateProcess", "dies-in:StartProcess", "fails-in:CreateProcess", "fails-in:StartProcess",
              "holds:CreateProcess", "cut:10", "cut:100"):
    setattr(Hostile, "test_" + re.sub(r"\W", "_", _name), lambda self, name=_name: self.check(name))


class Liars(Connect):
    def run_with(self, name, *args, **options):
        with hostile_guest.play(name, self.address(name)):
            return self.connected(name, "run", "--bundle", self.plain(*(args or ("true",))).path, self.new_id(), **options)

    def test_an_exit_code_that_is_none_is_not_success(self):
        self.assertNotEqual(self.run_with("odd-codes:-1").code, 0)
        self.assertNotEqual(self.run_with("odd-codes:257").code, 0)

    def test_streams_that_stay_open_are_waited_for_some_seconds(self):
        self.assertEqual(self.run_with("keeps-streams").code, 5)

    def test_only_the_first_connection_of_a_stream_counts(self):
        result = self.run_with("double-dial", "echo", "mine")
        self.assertEqual((result.code, result.out), (0, "mine\n"), result)

    def test_a_flood_is_as_slow_as_its_reader_and_can_be_deleted(self):
        with hostile_guest.play("floods", self.address("floods")):
            c = self.new_id()
            self.ids.append(c)
            process = self.spawn([*self.command("--sandbox", "connect=" + self.address("floods"), "--configuration",
                                                self.configuration), "run", "--bundle", self.plain("true").path, c],
                                 stdout=subprocess.PIPE, env=environment(ARCA_GUEST_SECONDS=str(LIMIT)))
            self.assertEqual(os.read(process.stdout.fileno(), 6), b"flood ")
            for pid in self.helpers():
                memory = re.search(r"VmHWM:\s+(\d+)", read_text(f"/proc/{pid}/status"))
                self.assertLess(int(memory.group(1)), 50 << 10)
            result = self.call(self.command("delete", "--force", c), seconds=PATIENCE,
                               env=environment(ARCA_GUEST_SECONDS=str(LIMIT)))
            self.assertEqual(result.code, 0, result)
            process.stdout.close()
            process.wait(PATIENCE)
            self.assertNotEqual(process.returncode, 0)


if __name__ == "__main__":
    main()
