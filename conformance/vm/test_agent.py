#!/usr/bin/python3
"""The agent with processes and streams of its own, as a plain process of this host: everything but the VM."""

import collections
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import isolation  # noqa: E402

TAG = isolation.enter(hide_unified_cgroup=False)

from agent import Agent, ext  # noqa: E402
from guest import Guest  # noqa: E402
from host_agent import HostAgent  # noqa: E402
from machine import BIN, busybox_rootfs, until  # noqa: E402
from process_cases import FAILURE, ProcessCases  # noqa: E402


class AgentOnTheHost(ProcessCases, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.host = cls.enterClassContext(HostAgent(f"/{TAG}"))
        cls.agent = cls.enterClassContext(Agent(cls.host))
        folder = cls.enterClassContext(tempfile.TemporaryDirectory(prefix=f"{TAG}-"))
        cls.guest = Guest(cls.host, cls.agent, busybox_rootfs(folder))

    def setUp(self):
        super().setUp()
        self.agent.extension.Version(ext.VersionRequest(), timeout=60)  # the connection is there
        self.addCleanup(self.check_leaks, self.resources())  # the first one is the last to run

    def check_leaks(self, before):
        until(lambda: self.resources() == before, lambda: f"the agent holds {before} again, not {self.resources()}", 10)

    def resources(self):
        """What the agent holds: children; descriptors by what they are."""
        pid = self.host.process.pid
        children = [task for name in os.listdir(f"/proc/{pid}/task")
                    for task in pathlib.Path(f"/proc/{pid}/task/{name}/children").read_text().split()]
        kinds = collections.Counter()
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                kinds[os.readlink(f"/proc/{pid}/fd/{name}").split(":[")[0]] += 1
        return sorted(kinds.items()), len(children)

    def test_delete_unmounts_the_root_file_system_first(self):
        rootfs = self.host.state / self.name / "rootfs"
        rootfs.mkdir(parents=True)
        source = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (source / "kept").write_text("x")
        isolation.mount(str(source), str(rootfs), None, isolation.MS_BIND)
        (rootfs / "inner").mkdir()
        isolation.mount("tmpfs", str(rootfs / "inner"), "tmpfs")
        self.guest.run(self.name, ["true"])
        self.assertFalse((self.host.state / self.name).exists())
        self.assertEqual((source / "kept").read_text(), "x")

    def test_delete_of_a_busy_root_file_system_fails_and_can_be_repeated(self):
        rootfs = self.host.state / self.name / "rootfs"
        rootfs.mkdir(parents=True)
        isolation.mount("tmpfs", str(rootfs), "tmpfs")
        (rootfs / "file").write_text("x")
        process = self.guest.create(self.name, ["true"], stdout=False, stderr=False)
        with open(rootfs / "file"):
            with self.refused(FAILURE.INTERNAL, "rootfs"):
                process.call("DeleteProcess")
        process.delete()
        self.assertFalse((self.host.state / self.name).exists())

    def test_power_off_is_not_for_what_is_no_vm(self):
        self.assertNotIn("vm", self.agent.extension.Version(ext.VersionRequest()).features)
        with self.refused(FAILURE.UNIMPLEMENTED):
            self.agent.extension.PowerOff(ext.PowerOffRequest(), timeout=10)


class CommandLine(unittest.TestCase):
    def run_program(self, *arguments, **more):
        return subprocess.run([str(BIN / "vminitd"), *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False, **more)

    def test_unknown_words_are_answered_with_the_usage(self):
        for arguments in (["what"], ["--what"], ["agent", "--log-level"], ["init"], ["init", "--", ], ["init", "-x", "y"],
                          ["pause", "x"], ["agent", "--state-root", "relative"]):
            done = self.run_program(*arguments)
            with self.subTest(arguments=arguments):
                self.assertEqual(done.returncode, 2)
                self.assertIn("usage: vminitd", done.stderr)

    def test_help_and_version(self):
        self.assertIn("usage:", self.run_program("--help").stdout)
        self.assertRegex(self.run_program("--version").stdout, r"^vminitd version \d")

    def test_agent_ends_on_sigterm(self):
        host = HostAgent(f"/{TAG}").__enter__()
        self.assertEqual(host.stop(), 0)

    def test_agent_that_cannot_listen_says_so(self):
        done = self.run_program("agent", "--transport", "unix:///no/such/folder", "--state-root", "/tmp/x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/no/such/folder", done.stderr)


class ContainerInit(unittest.TestCase):
    """vminitd as init of a container: not as first process here, but as the subreaper that it becomes."""

    def start(self, *arguments, program="vminitd", mode=("init",), **more):
        return subprocess.Popen([str(BIN / program), *mode, *arguments], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    def test_exit_code_is_the_commands(self):
        for command, code in (("exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)):
            process = self.start("--", "sh", "-c", command)
            process.communicate(timeout=60)
            self.assertEqual(process.returncode, code, command)

    def test_programs_that_cannot_be_run(self):
        for path, code in (("/no/such/program", 127), ("/etc/passwd", 126)):
            process = self.start(path)
            self.assertIn(path, process.communicate(timeout=60)[1])
            self.assertEqual(process.returncode, code)

    def test_signals_are_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGRTMIN + 2):
            name = int(number)
            process = self.start("sh", "-c", f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 0.01; done")
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.send_signal(number)
            self.assertEqual(process.communicate(timeout=60)[0], "got\n", name)
            self.assertEqual(process.returncode, 9)

    def test_whole_group_gets_them_when_asked(self):
        for option in ("-p", "--process-group"):
            script = "trap 'wait; exit 9' TERM; sh -c 'trap \"echo child; exit\" TERM; echo ready; while :; do sleep 0.01; done' & wait"
            process = self.start(option, "--", "sh", "-c", script)
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.terminate()
            self.assertEqual(process.communicate(timeout=60)[0], "child\n")
            self.assertEqual(process.returncode, 9)

    def test_orphans_are_reaped(self):
        process = self.start("sh", "-c", "(sleep 0.1 &); sleep 0.4; grep -l 'State:.Z' /proc/[0-9]*/status; true")
        self.assertEqual(process.communicate(timeout=60)[0], "")

    def test_other_name_means_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(BIN / "vminitd", os.path.join(folder, ".cz-init"))
            done = subprocess.run([os.path.join(folder, ".cz-init"), "--", "sh", "-c", "exit 5"], timeout=60, check=False)
            self.assertEqual(done.returncode, 5)

    def test_pause_waits_for_either_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.start("--log-level", "debug", mode=("pause",))
            self.assertIn("warning", process.stderr.readline())  # it waits for them now
            process.send_signal(number)
            process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
