"""containerd through ctr: run, run -d with task exec, kill, pause, ps, delete, and the death of a shim."""

import hashlib
import json
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import containerd_engine
import harness
import processes
import world

LOOP = "while :; do usleep 50000; done"


def screen(output):
    """Terminal output without the carriage return that ctr's own terminal adds (it stays in ONLCR mode)."""
    return output.replace(b"\r\r\n", b"\r\n")


def caught(pid):
    """The signals that a process has handlers for, as the mask of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16)
    return 0


class ContainerdRun(harness.EngineCase):
    @classmethod
    def setUpClass(cls):
        cls.start(containerd_engine.Containerd)

    def detached(self, runtime, *command, name="held", options=()):
        """`ctr run -d`; the container's output goes nowhere, as ctr does it."""
        self.check(self.engine.run(runtime, name, "-d", *options, "--", *command))
        return name

    def execute(self, container, *arguments, **options):
        """`ctr task exec` with an exec id of its own; `arguments` are the options, "--", the command."""
        cut = arguments.index("--")
        self.execs = getattr(self, "execs", 0) + 1
        return self.engine("task", "exec", "--exec-id", f"e{self.execs}", *arguments[:cut], container,
                           *arguments[cut + 1:], **options)

    def delete(self, container):
        """`ctr task delete` of a stopped task; gives the exit code of the init, which ctr only tells in a warning."""
        done = self.check(self.engine("task", "delete", container))
        told = re.search(rb"exit with non-zero exit code (\d+)", done.err)
        return told.group(1).decode() if told else "0"

    def wait_for_status(self, container, status):
        world.wait_until(lambda: self.engine.task_status(container) == status, 60, f"{container} is {status}")

    # -- ctr run ----------------------------------------------------------------------------------------------------

    def test_output_and_exit_codes(self):
        def scenario(runtime):
            seen = []
            for code in (0, 7, 126, 255):
                done = self.engine.run(runtime, "plain", "--rm", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
                self.check(done, code, "out\n")
                self.assertIn(b"err\n", done.err)
                seen.append((done.code, done.out))
            return seen
        self.compare(scenario)

    def test_missing_and_unrunnable_programs_fail(self):
        def scenario(runtime):
            seen = []
            for program, cause in (("/no/such/program", b"no such file or directory"),
                                   ("no-such-program", b"executable file not found in $PATH"),
                                   ("/opt/not-executable", b"permission denied")):
                done = self.engine.run(runtime, "broken", "--rm", "--", program)
                self.assertNotEqual(done.code, 0)
                self.assertIn(cause, done.err, str(done))
                self.engine.remove_all()
                seen.append(done.code)
            return seen
        self.compare(scenario)

    def test_one_mebibyte_through_stdin_is_unchanged(self):
        # ctr passes its end of input on by closing the task's stdin.
        data = os.urandom(1 << 20)

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "piped", "--rm", "--", "cat", stdin=data))
            self.assertEqual(hashlib.sha256(done.out).hexdigest(), hashlib.sha256(data).hexdigest())
            return len(done.out)
        self.compare(scenario)

    def test_terminal(self):
        def scenario(runtime):
            # The client tells the size once the task has been started: the program may be quicker.
            script = harness.WAIT_FOR_SIZE + "tty; echo ready; read line; echo got $line; stty size; exit 5"
            terminal = self.terminal(self.engine.run_argv(runtime, "term", "--rm", "-t", "--", "sh", "-c", script))
            terminal.expect(b"ready\r\r\n")
            terminal.send(b"typed\n")
            done = self.check(terminal.finish(), 5)
            self.assertEqual(screen(done.out), b"/dev/pts/0\r\nready\r\ntyped\r\ngot typed\r\n37 111\r\n")
            return screen(done.out)
        self.compare(scenario)

    def test_terminal_resize_and_interrupt_key(self):
        script = (harness.WAIT_FOR_SIZE +
                  "trap 'stty size | grep -v \"^37 111\"' WINCH; trap 'echo interrupted; exit 3' INT; echo ready; " + LOOP)

        def scenario(runtime):
            terminal = self.terminal(self.engine.run_argv(runtime, "term", "--rm", "-t", "--", "sh", "-c", script))
            terminal.expect(b"ready\r\r\n")
            terminal.resize(20, 60)
            terminal.expect(b"20 60\r\r\n")
            terminal.send(b"\x03")
            done = self.check(terminal.finish(), 3)
            self.assertEqual(screen(done.out), b"ready\r\n20 60\r\n^Cinterrupted\r\n")
            return screen(done.out)
        self.compare(scenario)

    def test_signal_to_the_client_is_forwarded(self):
        script = "trap 'echo got TERM; exit 15' TERM; trap 'echo got CONT' CONT; echo ready; " + LOOP

        def scenario(runtime):
            client = subprocess.Popen(self.engine.run_argv(runtime, "signalled", "--rm", "--", "sh", "-c", script),
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            try:
                processes.read_until(client.stdout, b"ready\n", 120)
                # The client forwards from some moment after the start on. SIGCONT does it no harm before that.
                deadline = time.monotonic() + 60
                while not select.select([client.stdout], [], [], 0.1)[0]:
                    self.assertLess(time.monotonic(), deadline, "no SIGCONT has reached the container")
                    client.send_signal(signal.SIGCONT)
                client.send_signal(signal.SIGTERM)
                rest, _ = client.communicate(timeout=30)
            finally:
                client.kill()
                client.wait()
                client.stdout.close()
            self.assertEqual((client.returncode, rest.splitlines()[0], rest.splitlines()[-1]),
                             (15, b"got CONT", b"got TERM"))
            return client.returncode
        self.compare(scenario)

    def test_null_io_and_read_only_root(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "sealed", "--rm", "--read-only", "--", "sh", "-c", "echo x > /f || exit 41")
            silent = self.engine.run(runtime, "silent", "--rm", "--null-io", "--", "sh", "-c", "echo nobody reads this; exit 9")
            self.check(done, 41)
            self.check(silent, 9, "")
            return done.code, silent.code
        self.compare(scenario)

    def test_everything_a_program_sees_is_equal(self):
        script = r"""
            env | sort; id; pwd; umask; hostname
            grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
            cat /proc/self/limits /proc/self/oom_score_adj /proc/self/setgroups /proc/self/uid_map /proc/self/cgroup
            sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | sort
            ls -l /dev | tail -n +2 | awk '{print $1,$3,$4,$5,$6,$NF}'
            ls /proc/self/fd; cat /proc/1/cmdline | tr '\0' ' '; readlink /proc/1/exe
        """

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "dumped", "--rm", "--", "sh", "-c", script))
            text = harness.comparable_mounts(re.sub(r"snapshots/\d+", "<snapshot>", done.text))
            self.assertGreater(len(text.splitlines()), 80)
            return text
        self.compare(scenario)

    # -- ctr run -d, task … -------------------------------------------------------------------------------------------

    def test_exec_kill_and_delete_of_a_detached_task(self):
        def scenario(runtime):
            name = self.detached(runtime, "sh", "-c", "trap 'exit 23' TERM; " + LOOP)
            self.assertEqual(self.engine.task_status(name), "RUNNING")
            ran = self.check(self.execute(name, "--", "sh", "-c", "echo inside; exit 7"), 7, "inside\n")
            # The shell is the init: TERM reaches it only once its trap is set, which the exec above cannot tell.
            pid = self.engine.task_pid(name)
            world.wait_until(lambda: caught(pid) & (1 << (signal.SIGTERM - 1)), 60, "the trap is set")
            self.check(self.engine("task", "kill", "-s", "SIGTERM", name))
            self.wait_for_status(name, "STOPPED")
            self.assertEqual(self.delete(name), "23")
            self.check(self.engine("containers", "rm", name))
            return ran.out
        self.compare(scenario)

    def test_exec_with_input_terminal_user_and_directory(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            piped = self.check(self.execute(name, "--", "cat", stdin=b"through exec\n"), out="through exec\n")
            placed = self.check(self.execute(name, "--cwd", "/home/tester", "--user", "1234:567", "--", "sh", "-c", "id; pwd"))
            terminal = self.terminal(self.engine.argv("task", "exec", "-t", "--exec-id", "term", name, "sh", "-c",
                                                      "tty; stty size; exit 6"))
            shown = self.check(terminal.finish(), 6)
            self.assertTrue(screen(shown.out).startswith(b"/dev/pts/0\r\n"), str(shown))
            return piped.out, placed.out, shown.code
        self.compare(scenario)

    def test_exec_of_what_cannot_run(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            missing = self.execute(name, "--", "/no/such/program")
            self.assertNotEqual(missing.code, 0)
            self.assertIn(b"no such file or directory", missing.err)
            self.check(self.execute(name, "--", "true"))
            return missing.code
        self.compare(scenario)

    def test_kill_all_reaches_execs_too(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            self.check(self.execute(name, "--detach", "--", "sleep", "100001"))
            self.check(self.engine("task", "kill", "-a", "-s", "SIGKILL", name))
            self.wait_for_status(name, "STOPPED")
            self.assertEqual(self.delete(name), "137")
            return self.engine.task_status(name)
        self.compare(scenario)

    def test_forced_delete_of_a_running_task(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            return self.engine("task", "delete", "-f", name).code, self.engine.task_status(name)
        self.compare(scenario)

    def test_pause_and_resume(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            self.check(self.engine("task", "pause", name))
            self.assertEqual(self.engine.task_status(name), "PAUSED")
            self.check(self.engine("task", "resume", name))
            self.assertEqual(self.engine.task_status(name), "RUNNING")
            return self.check(self.execute(name, "--", "echo", "alive"), out="alive\n").out
        self.compare(scenario)

    def test_ps_lists_every_process(self):
        def scenario(runtime):
            name = self.detached(runtime, "sh", "-c", "sleep 100000 & sleep 100001 & wait")
            pid = self.engine.task_pid(name)
            world.wait_until(lambda: len(self.engine("task", "ps", name).text.splitlines()) == 4, 60, "three processes")
            listed = self.check(self.engine("task", "ps", name)).text
            self.assertIn(str(pid), [line.split()[0] for line in listed.splitlines()])
            return len(listed.splitlines())
        self.compare(scenario)

    def test_metrics_come_from_the_containers_cgroup(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            done = self.check(self.engine("task", "metrics", "--format", "json", name))
            data = json.loads(done.text)
            return sorted(data) if isinstance(data, dict) else type(data).__name__
        self.compare(scenario)

    def test_init_is_the_containers_first_process_in_its_cgroup(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            pid = self.engine.task_pid(name)
            groups = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
            self.assertEqual(Path(f"/proc/{pid}/cmdline").read_bytes(), b"sleep\0" + b"100000\0")
            self.assertEqual(os.readlink(f"/proc/{pid}/exe").rpartition("/")[2], "busybox")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            self.assertIn(b"containerd-shim-runc-v2", Path(f"/proc/{parent}/cmdline").read_bytes())
            return groups, Path(f"/proc/{pid}/oom_score_adj").read_text()
        self.compare(scenario)

    def test_killed_shim_leaves_a_task_that_can_be_deleted(self):
        def scenario(runtime):
            name = self.detached(runtime, "sleep", "100000")
            pid = self.engine.task_pid(name)
            shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            handle = os.pidfd_open(pid)
            try:
                os.kill(shim, signal.SIGKILL)
                # containerd runs `shim delete`, which runs `delete --force`: that ends the init.
                ended, _, _ = select.select([handle], [], [], 60)
            finally:
                os.close(handle)
            self.assertTrue(ended, "the init still lives after its shim was killed")
            world.wait_until(lambda: self.engine.task_status(name) in (None, "STOPPED"), 60, "containerd noticed")
            self.engine("task", "delete", "-f", name)
            return self.check(self.engine("containers", "rm", name)).code
        self.compare(scenario)
