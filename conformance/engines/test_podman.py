"""podman through conmon: run, -i, -t, exit codes, -d with logs, stop and rm, exec, users, capabilities, pods."""

import hashlib
import json
import os
import re
from pathlib import Path

import harness
import podman_engine
import processes
import world

LOOP = "echo ready; while :; do usleep 50000; done"
SLEEPER = ("--", "sleep", "100000")


class PodmanRun(harness.EngineCase):
    @classmethod
    def setUpClass(cls):
        cls.start(podman_engine.Podman)

    def ready(self, runtime, script, *options):
        """Starts a detached shell script and waits for its line "ready"."""
        container = self.engine.begin(runtime, *options, "--", "sh", "-c", script)
        world.wait_until(lambda: "ready" in self.engine(runtime, "logs", container).text, 120, "the script is ready")
        return container

    def status(self, runtime, container):
        return self.engine(runtime, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", container).text.strip()

    # -- podman run --------------------------------------------------------------------------------------------------

    def test_output_and_exit_codes(self):
        def scenario(runtime):
            seen = []
            for code in (0, 7, 126, 127, 255):
                done = self.engine.run(runtime, "--rm", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
                self.check(done, code, "out\n")
                self.assertEqual(done.err, b"err\n")
                seen.append((done.code, done.out, done.err))
            return seen
        self.compare(scenario)

    def test_missing_and_unrunnable_programs(self):
        def scenario(runtime):
            seen = []
            for program, code in (("/no/such/program", 127), ("no-such-program", 127), ("/opt/not-executable", 126),
                                  ("/opt", 126)):
                done = self.check(self.engine.run(runtime, "--rm", "--", program), code, "")
                seen.append((program, done.code))
            return seen
        self.compare(scenario)

    def test_image_made_by_podman_import_runs(self):
        self.check(self.engine(self.engine.reference, "import", harness.rootfs_tar(), "localhost/imported:1"))

        def scenario(runtime):
            return self.check(self.engine(runtime, "run", "--rm", "--network", "none", "localhost/imported:1", "/bin/echo",
                                          "imported"), out="imported\n").out
        self.compare(scenario)

    def test_one_mebibyte_through_stdin_is_unchanged(self):
        data = os.urandom(1 << 20)

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "-i", "--", "cat", stdin=data))
            self.assertEqual(hashlib.sha256(done.out).hexdigest(), hashlib.sha256(data).hexdigest())
            return len(done.out)
        self.compare(scenario)

    def test_without_interactive_stdin_is_empty(self):
        def scenario(runtime):
            return self.check(self.engine.run(runtime, "--rm", "--", "wc", "-c", stdin=b"ignored"), out="0\n").out
        self.compare(scenario)

    def test_terminal_size_input_and_interrupt_key(self):
        script = ("tty; " + harness.WAIT_FOR_SIZE +
                  "stty size; read line; echo got $line; "
                  "trap 'echo interrupted; exit 3' INT; " + LOOP)

        def scenario(runtime):
            terminal = self.terminal(self.engine.run_argv(runtime, "--rm", "-it", "--", "sh", "-c", script))
            terminal.expect(b"37 111\r\n")
            terminal.send(b"typed\n")
            terminal.expect(b"ready\r\n")
            terminal.send(b"\x03")
            done = self.check(terminal.finish(), 3)
            self.assertEqual(done.out, b"/dev/pts/0\r\n37 111\r\ntyped\r\ngot typed\r\nready\r\n^Cinterrupted\r\n")
            return done.out
        self.compare(scenario)

    def test_resize_reaches_the_program(self):
        script = (harness.WAIT_FOR_SIZE +
                  "trap 'stty size | grep -v \"^37 111\" && exit 6' WINCH; " + LOOP)

        def scenario(runtime):
            terminal = self.terminal(self.engine.run_argv(runtime, "--rm", "-it", "--", "sh", "-c", script))
            terminal.expect(b"ready\r\n")
            terminal.resize(20, 60)
            done = self.check(terminal.finish(), 6)
            self.assertEqual(done.out, b"ready\r\n20 60\r\n")
            return done.out
        self.compare(scenario)

    def test_descriptors_are_passed_on(self):
        def scenario(runtime):
            read, write = os.pipe()
            try:
                os.write(write, b"through descriptor 3\n")
                os.close(write)

                def third():
                    os.dup2(read, 3)

                argv = self.engine.run_argv(runtime, "--rm", "--preserve-fds", "1", "--", "sh", "-c", "cat <&3; ls /proc/self/fd")
                done = processes.subprocess.run(argv, env=self.engine.env, capture_output=True, timeout=60,
                                                stdin=processes.subprocess.DEVNULL, pass_fds=(3,), preexec_fn=third)
            finally:
                os.close(read)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertTrue(done.stdout.startswith(b"through descriptor 3\n0\n1\n2\n3\n"), done)
            return done.stdout
        self.compare(scenario)

    # -- rights and files --------------------------------------------------------------------------------------------

    def test_users(self):
        def scenario(runtime):
            return [self.check(self.engine.run(runtime, "--rm", "--user", user, "--", "id")).out
                    for user in ("1234:567", "tester", "4321")]
        self.compare(scenario)

    def test_capabilities(self):
        def scenario(runtime):
            seen = [self.check(self.engine.run(runtime, "--rm", *flags, "--", "grep", "^Cap", "/proc/self/status")).out
                    for flags in ((), ("--cap-drop", "ALL"), ("--cap-drop", "CHOWN"), ("--cap-add", "NET_ADMIN"))]
            self.assertEqual(len(set(seen)), 4)
            return seen
        self.compare(scenario)

    def test_mounts_read_only_root_and_tmpfs(self):
        directory = self.engine.home / "shared"
        directory.mkdir(exist_ok=True)
        script = "echo inside > /rw/file; echo x > /no || echo refused; echo y > /scratch/f && cat /scratch/f"

        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--read-only", "-v", f"{directory}:/rw", "--tmpfs", "/scratch", "--",
                                   "sh", "-c", script)
            self.check(done, out="refused\ny\n")
            self.assertEqual((directory / "file").read_text(), "inside\n")
            return done.out, done.err
        self.compare(scenario)

    def test_everything_a_program_sees_is_equal(self):
        script = r"""
            env | sort; id; pwd; umask
            grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
            cat /proc/self/limits /proc/self/oom_score_adj /proc/self/setgroups /proc/self/uid_map /proc/self/cgroup
            sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo | sort
            ls -l /dev | tail -n +2 | awk '{print $1,$3,$4,$5,$6,$NF}'
            ls /proc/self/fd; cat /proc/1/cmdline | tr '\0' ' '; readlink /proc/1/exe
        """

        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", script))
            text = harness.plain(done.out)
            text = harness.comparable_mounts(re.sub(r"overlay/(l/)?[^\s,:/]*", "<layer>", text))
            self.assertGreater(len(text.splitlines()), 80)
            return text
        self.compare(scenario)

    def test_default_seccomp_profile_is_in_force(self):
        def scenario(runtime):
            script = "grep -E 'Seccomp(_filters)?:' /proc/self/status; mount -t proc proc /proc; swapoff -a; echo done"
            strict = self.check(self.engine.run(runtime, "--rm", "--", "sh", "-c", script))
            self.assertIn("Seccomp:\t2\n", strict.text)
            loose = self.check(self.engine.run(runtime, "--rm", "--security-opt", "seccomp=unconfined", "--", "sh", "-c",
                                               script))
            self.assertIn("Seccomp:\t0\n", loose.text)
            return strict.out, strict.err, loose.out, loose.err
        self.compare(scenario)

    # -- detached ----------------------------------------------------------------------------------------------------

    def test_detached_container_logs_waits_and_is_removed(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--", "sh", "-c", "echo out; echo err >&2; exit 12")
            self.check(self.engine(runtime, "wait", container), out="12\n")
            logs = self.check(self.engine(runtime, "logs", container))
            self.assertEqual((logs.out, logs.err), (b"out\n", b"err\n"))
            self.assertEqual(self.status(runtime, container), "exited 12")
            self.check(self.engine(runtime, "rm", container))
            return logs.out, logs.err, self.engine(runtime, "inspect", container).code
        self.compare(scenario)

    def test_stop_lets_the_program_end(self):
        def scenario(runtime):
            container = self.ready(runtime, "trap 'echo got TERM; exit 143' TERM; " + LOOP)
            stopped = self.check(self.engine(runtime, "stop", "-t", "20", container))
            self.assertLess(stopped.seconds, 10)
            self.assertEqual(self.status(runtime, container), "exited 143")
            return self.engine(runtime, "logs", container).out
        self.compare(scenario)

    def test_stop_kills_a_deaf_program(self):
        def scenario(runtime):
            container = self.ready(runtime, "trap '' TERM; " + LOOP)
            stopped = self.check(self.engine(runtime, "stop", "-t", "2", container))
            self.assertGreaterEqual(stopped.seconds, 1.9)
            self.assertLess(stopped.seconds, 12)
            return self.status(runtime, container)
        self.compare(scenario)

    def test_kill_delivers_the_named_signal(self):
        def scenario(runtime):
            container = self.ready(runtime, "trap 'echo got USR1; exit 10' USR1; " + LOOP)
            self.check(self.engine(runtime, "kill", "-s", "USR1", container))
            return self.check(self.engine(runtime, "wait", container), out="10\n").out
        self.compare(scenario)

    def test_forced_removal_of_a_running_container(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            return self.check(self.engine(runtime, "rm", "-f", "-t", "0", container)).code
        self.compare(scenario)

    def test_create_start_restart(self):
        def scenario(runtime):
            container = self.ready(runtime, "trap 'exit 0' TERM; " + LOOP)
            first = self.engine(runtime, "inspect", "-f", "{{.State.Pid}}", container).text
            self.check(self.engine(runtime, "restart", "-t", "20", container))
            self.assertNotEqual(first, self.engine(runtime, "inspect", "-f", "{{.State.Pid}}", container).text)
            return self.status(runtime, container)
        self.compare(scenario)

    def test_initialised_container_is_created_and_waits(self):
        # podman init is `create` without `start`.
        def scenario(runtime):
            made = self.check(self.engine(runtime, "create", "--network", "none", harness.image.NAME, "echo", "started"))
            container = made.text.strip()
            self.check(self.engine(runtime, "init", container))
            waiting = self.status(runtime, container)
            started = self.check(self.engine(runtime, "start", "-a", container), out="started\n")
            return waiting, started.out
        self.compare(scenario)

    # -- exec and looking in -------------------------------------------------------------------------------------------

    def test_exec_output_code_input_and_user(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            plain = self.check(self.engine(runtime, "exec", container, "sh", "-c", "echo out; echo err >&2; exit 33"),
                               33, "out\n")
            self.assertTrue(plain.err.startswith(b"err\n"), str(plain))
            piped = self.check(self.engine(runtime, "exec", "-i", container, "cat", stdin=b"in\n"), out="in\n")
            placed = self.check(self.engine(runtime, "exec", "-u", "tester", "-w", "/home/tester", "-e", "A=b", container,
                                            "sh", "-c", "id; pwd; echo $A; echo $HOME"))
            return plain.code, piped.out, placed.out
        self.compare(scenario)

    def test_exec_of_what_cannot_run(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            codes = [self.engine(runtime, "exec", container, program).code
                     for program in ("/no/such/program", "no-such-program", "/opt/not-executable")]
            self.assertEqual(codes, [127, 127, 126])
            return codes
        self.compare(scenario)

    def test_exec_under_a_terminal(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            terminal = self.terminal([*self.engine.argv(runtime), "exec", "-it", container, "sh", "-c",
                                      "tty; read line; echo got $line; exit 8"])
            terminal.expect(b"/dev/pts/0\r\n")
            terminal.send(b"typed\n")
            done = self.check(terminal.finish(), 8)
            self.assertEqual(done.out, b"/dev/pts/0\r\ntyped\r\ngot typed\r\n")
            return done.out
        self.compare(scenario)

    def test_detached_exec_runs_on(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            self.check(self.engine(runtime, "exec", "-d", container, "sleep", "100001"))
            counted = "ps -o args | grep -c '^sleep 10000'"
            return self.check(self.engine(runtime, "exec", container, "sh", "-c", counted), out="2\n").out
        self.compare(scenario)

    def test_top_stats_and_healthy_cgroup(self):
        def scenario(runtime):
            container = self.ready(runtime, "sleep 100000 & sleep 100001 & echo ready; wait")
            top = self.check(self.engine(runtime, "top", container, "args")).text.splitlines()
            stats = json.loads(self.check(self.engine(runtime, "stats", "--no-stream", "--format", "json", container)).text)
            self.assertEqual(stats[0]["pids"], "3")
            pid = self.engine(runtime, "inspect", "-f", "{{.State.Pid}}", container).text.strip()
            groups = harness.plain(Path(f"/proc/{pid}/cgroup").read_text())
            return sorted(top), stats[0]["pids"], groups
        self.compare(scenario)

    def test_pause_and_unpause(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            self.check(self.engine(runtime, "pause", container))
            paused = self.status(runtime, container)
            self.check(self.engine(runtime, "unpause", container))
            self.check(self.engine(runtime, "exec", container, "echo", "alive"), out="alive\n")
            self.assertEqual(paused, "paused 0")
            return paused, self.status(runtime, container)
        self.compare(scenario)

    def test_update_changes_the_memory_limit(self):
        def limit(runtime, container):
            pid = self.engine(runtime, "inspect", "-f", "{{.State.Pid}}", container).text.strip()
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if controllers == "memory":
                    return Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes").read_text()
            return Path(f"/sys/fs/cgroup{path}/memory.max").read_text()

        def scenario(runtime):
            container = self.engine.begin(runtime, "--memory", "64m", *SLEEPER)
            before = limit(runtime, container)
            self.assertEqual(before, f"{64 << 20}\n")
            self.check(self.engine(runtime, "update", "--memory", "80m", container))
            self.assertEqual(limit(runtime, container), f"{80 << 20}\n")
            return before
        self.compare(scenario)

    def test_containers_of_a_pod_share_namespaces(self):
        script = "for n in net ipc uts; do readlink /proc/self/ns/$n; done"

        def scenario(runtime):
            first = self.engine.begin(runtime, "--ipc", "shareable", *SLEEPER)
            mine = self.check(self.engine(runtime, "exec", first, "sh", "-c", script))
            joined = self.engine.run(runtime, "--rm", "--network", f"container:{first}", "--ipc", f"container:{first}",
                                     "--uts", f"container:{first}", "--", "sh", "-c", script)
            self.check(joined, out=mine.text)
            self.assertEqual(len(set(mine.text.split())), 3)
            return joined.code
        self.compare(scenario)

    def test_default_network_reaches_its_gateway(self):
        script = "ls /sys/class/net; ping -c1 -W5 $(ip route | awk '/default/ {print $3}') | grep -c 'bytes from'"

        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--network", "podman", "--", "sh", "-c", script)
            return self.check(done, out="eth0\nlo\n1\n").out
        self.compare(scenario)
