"""--systemd-cgroup with a systemd that refuses, fails or never answers: an error that says so, and nothing left.

A real systemd is asked by ../cgroup2/test_systemd.py, in a VM. Here one of the tests' own stands at the address of the
system bus.
"""

import contextlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import SANDBOX, TAG, Case, Result, environment, main, ours_only, read_text, wait_process  # noqa: E402
from fake_systemd import FakeSystemd  # noqa: E402
from leaks import cgroup_roots  # noqa: E402

START, SLICE = "StartTransientUnit", f"{TAG}.slice"
EXISTS = ("org.freedesktop.systemd1.UnitExists", "Unit is there already.")
DENIED = ("org.freedesktop.DBus.Error.AccessDenied", "Access denied")
PATIENCE = 30  # seconds that systemd has for an answer, and again for a job


class SystemdCase(Case):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.remove_slice)

    @staticmethod
    def remove_slice():
        """What a cgroup is made in stays, also in the hierarchies of cgroup v1 that systemd does not know."""
        for root in cgroup_roots():
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, SLICE))

    def systemd(self, **options):
        folder = os.path.join(self.dir, self.new_id("bus"))
        os.mkdir(folder)
        fake = self.enterContext(FakeSystemd(folder, **options))
        return fake, environment(DBUS_SYSTEM_BUS_ADDRESS=fake.address)

    def scope(self, **linux):
        """Id, arguments and unit of a container that is not there yet."""
        identity = self.new_id()
        bundle = self.bundle("sleep", "600", linux={"cgroupsPath": f"{SLICE}:test:{identity}", **linux})
        return identity, ["--systemd-cgroup", "create", "--bundle", bundle.path, identity], f"test-{identity}.scope"


@ours_only("what systemd is asked for, and the texts, are ours")
class Jobs(SystemdCase):
    def check_failure(self, identity, result, *says):
        self.assertEqual(result.code, 1, result)
        self.assertEqual(len(result.err.splitlines()), 1, result)
        for text in says:
            self.assertIn(text, result.err)
        self.assert_gone(identity)
        # Processes, cgroups and mounts are looked for after each test.

    def create_fails(self, says, **options):
        """Gives what systemd was asked for: [(method, unit), ...]."""
        fake, env = self.systemd(**options)
        identity, words, unit = self.scope()
        self.check_failure(identity, self.rt(*words, env=env), *(text.format(unit=unit) for text in says))
        self.assertEqual({call[1:] for call in fake.calls} - {(unit,)}, set())
        self.assertEqual(len(fake.connections), 1)  # nothing is tried all over again
        return [call[0] for call in fake.calls]

    def test_each_result_of_a_job_but_done_is_an_error_with_its_name(self):
        for result in ("failed", "timeout", "dependency", "canceled", "skipped", "no\nword"):
            with self.subTest(result=result):
                says = ("systemd: start of {unit}: ", f"the job's result is {result.splitlines()[0]}")
                calls = self.create_fails(says, result=result)
                # What came of it is called off, and a unit that failed stays until somebody has looked at it.
                self.assertEqual(calls, [START, "StopUnit", "ResetFailedUnit"])

    def test_a_refusal_is_an_error_with_systemds_words(self):
        calls = self.create_fails(("systemd: start of {unit}: Access denied",), refuses={START: DENIED})
        self.assertEqual(calls, [START])  # what was not started is not stopped either: it may be another's

    def test_a_systemd_that_goes_away_is_an_error(self):
        for method in ("Hello", "AddMatch", "Subscribe", START):
            with self.subTest(method=method):
                calls = self.create_fails(("systemd",), leaves=method)
                self.assertNotIn("StopUnit", calls)

    def test_a_systemd_that_goes_away_during_the_job_is_an_error(self):
        calls = self.create_fails(("systemd: start of {unit}: ", "the bus went away during job"), leaves_during=START)
        self.assertEqual(calls, [START])

    def test_a_systemd_that_does_not_answer_is_an_error_in_time(self):
        # All at once: each takes as long as systemd is waited for.
        cases = [({"silent": ["AUTH"]}, "cannot reach systemd over D-Bus", []),
                 ({"silent": ["Hello"]}, "cannot reach systemd over D-Bus", []),
                 ({"silent": ["AddMatch"]}, "systemd: AddMatch: ", []),
                 ({"silent": ["Subscribe"]}, "systemd: Subscribe: ", []),
                 ({"silent": [START]}, "systemd: start of ", [START]),
                 ({"result": None}, "did not end within 30 s", [START, "StopUnit", "ResetFailedUnit"]),
                 ({"result": None, "silent": ["StopUnit"]}, "did not end within 30 s", [START, "StopUnit"])]
        running = []
        for options, says, calls in cases:
            fake, env = self.systemd(**options)
            identity, words, _ = self.scope()
            process = self.spawn(self.command(*words), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            running.append((process, identity, fake, says, calls))
        for process, identity, fake, says, calls in running:
            with self.subTest(says=says, calls=calls):
                code = wait_process(process, PATIENCE + 10, self.reap)
                with process.stdout, process.stderr:
                    result = Result(process.args, code, process.stdout.read(), process.stderr.read())
                self.check_failure(identity, result, says)
                self.assertEqual([call[0] for call in fake.calls], calls)

    def test_a_scope_whose_cgroup_is_not_told_is_stopped_again(self):
        fake, env = self.systemd(refuses={"Get": DENIED})
        identity, words, unit = self.scope()
        self.check_failure(identity, self.rt(*words, env=env), f"systemd: ControlGroup of {unit}: Access denied")
        self.assertEqual([call[0] for call in fake.calls], [START, "Get", "StopUnit", "ResetFailedUnit"])

    def test_a_unit_that_failed_before_is_forgotten_and_started_again(self):
        fake, env = self.systemd(refuses={START: EXISTS})
        identity, words, _ = self.scope()
        self.ok(*words, env=env)
        self.assertEqual([call[0] for call in fake.calls][:3], [START, "ResetFailedUnit", START])
        self.ok("delete", "--force", identity, env=env)

    def test_a_unit_that_runs_is_left_alone(self):
        calls = self.create_fails(("systemd: start of {unit}: Unit is there already.",), refuses={START: EXISTS},
                                  keeps_refusing=True)
        self.assertEqual(calls, [START, "ResetFailedUnit", START])

    def test_nobody_at_the_bus_is_an_error(self):
        identity, words, _ = self.scope()
        result = self.rt(*words, env=environment(DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={self.dir}/nobody"))
        self.check_failure(identity, result, "--systemd-cgroup: cannot reach systemd over D-Bus: ")


@ours_only("what systemd is asked for is ours")
class Scopes(SystemdCase):
    def test_a_container_or_its_stand_in_is_in_the_scope_until_it_is_deleted(self):
        fake, env = self.systemd()
        identity, words, unit = self.scope(resources={"memory": {"limit": 64 << 20}})
        self.ids.append(identity)
        self.ok(*words, env=env)
        pid = self.state(identity)["pid"]
        self.assertEqual(fake.units[unit]["Slice"], SLICE)
        self.assertIn(f"/{SLICE}/{unit}\n", read_text(f"/proc/{pid}/cgroup"))
        # The limits of a container in a guest are the guest's.
        limits = [name for name in fake.units[unit] if name in ("MemoryMax", "MemoryLimit")]
        self.assertEqual(len(limits), 1 if SANDBOX == "local" else 0, fake.units[unit])
        self.ok("start", identity)
        self.assertEqual(self.exec(identity, "echo", "alive").out, "alive\n")
        self.ok("delete", "--force", identity, env=env)
        self.assertIn(("StopUnit", unit), fake.calls)
        self.assertEqual(fake.units, {})


if __name__ == "__main__":
    main()
