"""Containers that stay: `docker run -d`, exec, logs, stop, kill, pause, update, top, stats, restart, remove."""

import hashlib
import json
import os
import sys
from pathlib import Path

import docker_engine
import harness
import image
import world

SLEEPER = ("--", "sleep", "100000")
TRAPS = "trap 'echo got TERM; exit 143' TERM; trap 'echo got USR1' USR1; trap 'echo got HUP; exit 21' HUP; "
LOOP = "echo ready; while :; do usleep 50000; done"


class DockerLifecycle(harness.EngineCase):
    @classmethod
    def setUpClass(cls):
        cls.start(docker_engine.Docker)

    def ready(self, runtime, script, *options):
        """Starts a detached shell script and waits for its line "ready"."""
        container = self.engine.begin(runtime, *options, "--", "sh", "-c", script)
        self.engine.wait_for_log(container, b"ready")
        return container

    def status(self, container):
        return self.engine.inspect(container, "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}")

    def cgroup_file(self, container, v1, v2):
        """A file of the container's cgroup, read from outside: `v1` is (controller, file)."""
        for version, controllers, point in world.cgroup_mounts():
            if version == 1 and v1[0] in controllers.split(","):
                return open(f"{point}/docker/{container}/{v1[1]}").read().strip()
        return open(f"/sys/fs/cgroup/docker/{container}/{v2}").read().strip()

    # -- detached, logs, wait, stop, rm ------------------------------------------------------------------------------

    def test_detached_container_logs_waits_and_is_removed(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--", "sh", "-c", "echo out; echo err >&2; exit 12")
            waited = self.check(self.engine("wait", container), out="12\n")
            logs = self.engine("logs", container)
            self.assertEqual((logs.out, logs.err), (b"out\n", b"err\n"))
            self.assertEqual(self.status(container), "exited 12 false")
            removed = self.check(self.engine("rm", container))
            gone = self.engine("inspect", container)
            return waited.out, logs.out, logs.err, removed.code, gone.code
        self.compare(scenario)

    def test_stop_sends_term_and_the_program_chooses_its_code(self):
        def scenario(runtime):
            container = self.ready(runtime, TRAPS + LOOP)
            stopped = self.check(self.engine("stop", "-t", "20", container))
            self.assertLess(stopped.seconds, 10, "a program that obeys SIGTERM must not be waited for")
            self.assertEqual(self.status(container), "exited 143 false")
            return self.engine("logs", container).out
        self.compare(scenario)

    def test_stop_kills_a_deaf_program_when_the_time_is_over(self):
        def scenario(runtime):
            container = self.ready(runtime, "trap '' TERM; " + LOOP)
            stopped = self.check(self.engine("stop", "-t", "2", container))
            self.assertGreaterEqual(stopped.seconds, 1.9)
            self.assertLess(stopped.seconds, 12)
            self.assertEqual(self.status(container), "exited 137 false")
            return self.status(container)
        self.compare(scenario)

    def test_stop_through_an_init_ends_a_program_without_handler(self):
        def scenario(runtime):
            container = self.ready(runtime, "echo ready; exec sleep 100000", "--init")
            stopped = self.check(self.engine("stop", "-t", "20", container))
            self.assertLess(stopped.seconds, 10)
            self.assertEqual(self.status(container), "exited 143 false")
            return self.status(container)
        self.compare(scenario)

    def test_stop_signal_of_the_container_is_used(self):
        def scenario(runtime):
            container = self.ready(runtime, TRAPS + LOOP, "--stop-signal", "SIGHUP")
            self.check(self.engine("stop", "-t", "20", container))
            return self.status(container), self.engine("logs", container).out
        self.compare(scenario)

    def test_forced_removal_of_a_running_container(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            return self.check(self.engine("rm", "-f", container)).code
        self.compare(scenario)

    def test_restart_and_start_run_the_program_again(self):
        def scenario(runtime):
            container = self.ready(runtime, TRAPS + LOOP)
            first = self.engine.inspect(container, "{{.State.Pid}}")
            self.check(self.engine("restart", "-t", "20", container))
            second = self.engine.inspect(container, "{{.State.Pid}}")
            self.assertNotEqual(first, second)
            self.check(self.engine("kill", container))
            self.check(self.engine("start", container))
            self.check(self.engine("exec", container, "true"))
            return self.status(container)
        self.compare(scenario)

    def test_attached_start_gives_output_and_exit_code(self):
        def scenario(runtime):
            made = self.check(self.engine("create", "--runtime", runtime.name, "-i", image.NAME, "sh", "-c",
                                          "cat; exit 4"))
            done = self.check(self.engine("start", "-ai", made.text.strip(), stdin=b"through start\n"), 4)
            self.assertEqual(done.out, b"through start\n")
            return done.out
        self.compare(scenario)

    def test_container_that_was_never_started_is_removed(self):
        def scenario(runtime):
            made = self.check(self.engine("create", "--runtime", runtime.name, image.NAME, "true"))
            return self.check(self.engine("rm", made.text.strip())).code
        self.compare(scenario)

    def test_children_die_with_the_init(self):
        def scenario(runtime):
            container = self.ready(runtime, "sleep 100001 & setsid sleep 100002 & echo ready; exec sleep 100003")
            self.check(self.engine("kill", container))
            self.check(self.engine("wait", container), out="137\n")
            return self.status(container)
        self.compare(scenario)

    # -- signals -----------------------------------------------------------------------------------------------------

    def test_kill_delivers_the_named_signal(self):
        def scenario(runtime):
            container = self.ready(runtime, TRAPS + LOOP)
            self.check(self.engine("kill", "-s", "USR1", container))
            self.engine.wait_for_log(container, b"got USR1")
            self.check(self.engine("kill", "-s", "SIGHUP", container))
            waited = self.check(self.engine("wait", container), out="21\n")
            return waited.out, self.engine("logs", container).out
        self.compare(scenario)

    def test_kill_of_a_stopped_container_fails(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--", "true")
            self.check(self.engine("wait", container), out="0\n")
            return self.check(self.engine("kill", container), 1).code
        self.compare(scenario)

    def test_death_of_the_init_from_outside_is_noticed(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            os.kill(int(self.engine.inspect(container, "{{.State.Pid}}")), 9)
            self.check(self.engine("wait", container), out="137\n")
            return self.status(container)
        self.compare(scenario)

    # -- exec --------------------------------------------------------------------------------------------------------

    def test_exec_prints_and_returns(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            plain = self.engine("exec", container, "sh", "-c", "echo out; echo err >&2; exit 33")
            self.check(plain, 33, "out\n")
            self.assertEqual(plain.err, b"err\n")
            killed = self.check(self.engine("exec", container, "sh", "-c", "kill -KILL $$"), 137)
            return plain.code, plain.out, plain.err, killed.code
        self.compare(scenario)

    def test_exec_of_what_cannot_run(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            codes = [self.engine("exec", container, program).code
                     for program in ("/no/such/program", "no-such-program", "/opt/not-executable", "/opt")]
            self.assertEqual(codes, [126, 126, 126, 126])  # as docker 20.10 reports every failure of an exec
            self.check(self.engine("exec", container, "true"))
            return codes
        self.compare(scenario)

    def test_exec_of_what_cannot_run_names_the_cause(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            missing = self.engine("exec", container, "no-such-program")
            self.assertIn("executable file not found in $PATH", missing.text + missing.err.decode())
            refused = self.engine("exec", container, "/opt/not-executable")
            self.assertIn("permission denied", refused.text + refused.err.decode())
            return missing.code, refused.code
        self.compare(scenario)

    def test_exec_takes_stdin(self):
        data = os.urandom(1 << 20)

        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            done = self.check(self.engine("exec", "-i", container, "cat", stdin=data))
            self.assertEqual(hashlib.sha256(done.out).hexdigest(), hashlib.sha256(data).hexdigest())
            return len(done.out)
        self.compare(scenario)

    def test_exec_under_a_terminal(self):
        script = ("tty; " + harness.WAIT_FOR_SIZE +
                  "stty size; echo ready; read line; echo got $line; exit 8")

        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            terminal = self.terminal([self.engine.client, "exec", "-it", container, "sh", "-c", script])
            terminal.expect(b"ready\r\n")
            terminal.send(b"words\n")
            done = self.check(terminal.finish(), 8)
            self.assertEqual(done.out, b"/dev/pts/0\r\n37 111\r\nready\r\nwords\r\ngot words\r\n")
            return done.out
        self.compare(scenario)

    def test_exec_interrupt_key(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            terminal = self.terminal([self.engine.client, "exec", "-it", container, "sh", "-c",
                                      "trap 'echo interrupted; exit 3' INT; " + LOOP])
            terminal.expect(b"ready\r\n")
            terminal.send(b"\x03")
            return self.check(terminal.finish(), 3).out
        self.compare(scenario)

    def test_exec_user_directory_and_environment(self):
        script = "id; pwd; echo $A; echo $HOME; grep ^Cap /proc/self/status"

        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            done = self.engine("exec", "-u", "tester", "-w", "/home/tester", "-e", "A=b c", container, "sh", "-c", script)
            self.check(done)
            self.assertTrue(done.text.startswith("uid=1234(tester) gid=567(tester) groups=567(tester),890(extra)\n"
                                                 "/home/tester\nb c\n/home/tester\n"), str(done))
            return done.out
        self.compare(scenario)

    def test_privileged_exec_has_all_that_the_engine_may_give(self):
        # Docker asks for every capability. Where the caller itself lacks one, runc refuses (126); the specification
        # would rather have the rest granted. Both are right then; where nothing is lacking, only the full set is.
        own = Path("/proc/self/status").read_text().split("CapBnd:")[1].split()[0]
        full = own == "000001ffffffffff"

        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            done = self.engine("exec", "--privileged", container, "grep", "^CapEff", "/proc/self/status")
            if full or done.code != 126:
                self.check(done)
                granted = int(done.text.split()[1], 16)
                self.assertEqual(granted & ~int(own, 16), 0)
                self.assertTrue(granted & (1 << 21), "CAP_SYS_ADMIN")
            return done.out if full else None
        self.compare(scenario)

    def test_exec_joins_every_namespace_and_cgroup(self):
        script = ("for n in cgroup ipc mnt net pid uts user; do "
                  "[ \"$(readlink /proc/1/ns/$n)\" = \"$(readlink /proc/self/ns/$n)\" ] || echo $n differs; done; "
                  "cmp /proc/1/cgroup /proc/self/cgroup; grep -E '^(Seccomp|NoNewPrivs|CapBnd)' /proc/self/status; "
                  "ls /proc/self/fd; cat /proc/self/limits | grep open")

        def scenario(runtime):
            container = self.engine.begin(runtime, "--cgroupns", "private", *SLEEPER)
            done = self.check(self.engine("exec", container, "sh", "-c", script))
            self.assertNotIn("differ", done.text)
            self.assertIn("Seccomp:\t2", done.text)
            return done.out
        self.compare(scenario)

    def test_detached_exec_runs_on(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            self.check(self.engine("exec", "-d", container, "sh", "-c", "sleep 100004 & echo > /tmp/made; wait"), out="")
            world.wait_until(lambda: self.engine("exec", container, "test", "-f", "/tmp/made").code == 0, 60, "/tmp/made")
            found = self.engine("exec", container, "sh", "-c", "ps -o args | grep -c '^sleep 10000[04]'")
            return self.check(found, out="2\n").out
        self.compare(scenario)

    def test_many_execs_at_once(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            running = [self.terminal([self.engine.client, "exec", container, "sh", "-c", f"echo number {n}; exit {n}"])
                       for n in range(8)]
            done = [terminal.finish() for terminal in running]
            self.assertEqual([d.code for d in done], list(range(8)))
            return [d.out for d in done]
        self.compare(scenario)

    def test_exec_in_a_stopped_container_fails(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--", "true")
            self.check(self.engine("wait", container), out="0\n")
            return self.check(self.engine("exec", container, "true"), 1).code
        self.compare(scenario)

    # -- looking in ---------------------------------------------------------------------------------------------------

    def test_top_lists_the_processes(self):
        def scenario(runtime):
            container = self.ready(runtime, "sleep 100005 & sleep 100006 & echo ready; wait")
            default = self.check(self.engine("top", container))
            chosen = self.check(self.engine("top", container, "-o", "pid,args"))
            rows = sorted(line.split(None, 1)[1] for line in chosen.text.splitlines())
            self.assertEqual(rows[0], "COMMAND")
            self.assertIn("sleep 100005", rows)
            pids = {line.split()[0] for line in chosen.text.splitlines()[1:]}
            self.assertIn(self.engine.inspect(container, "{{.State.Pid}}"), pids)
            return rows, default.text.splitlines()[0].split(), len(default.text.splitlines())
        self.compare(scenario)

    def test_top_lists_no_process_outside_the_containers_cgroup(self):
        """What the runtime says is taken for pids of this host, wherever the container is."""
        def scenario(runtime):
            container = self.ready(runtime, "sleep 100009 & sleep 100010 & echo ready; wait")
            identity = self.engine.inspect(container, "{{.Id}}")
            rows = self.check(self.engine("top", container, "-o", "pid,args")).text.splitlines()[1:]
            for row in rows:
                self.assertIn(identity, Path(f"/proc/{row.split()[0]}/cgroup").read_text(encoding="ascii"), row)
            return bool(rows)
        self.compare(scenario)

    def test_stats_show_memory_and_processes(self):
        def scenario(runtime):
            container = self.ready(runtime, "sleep 100007 & sleep 100008 & echo ready; wait", "--memory", "64m",
                                   "--name", "measured")
            done = self.check(self.engine("stats", "--no-stream", "--format", "{{json .}}", container))
            stats = json.loads(done.out)
            self.assertEqual(stats["PIDs"], "3")
            self.assertRegex(stats["MemUsage"], r"^\d+(\.\d+)?[KM]iB / 64MiB$")
            self.assertNotRegex(stats["MemUsage"], r"^0B")
            return stats["Name"], stats["PIDs"], stats["MemUsage"].split("/")[1]
        self.compare(scenario)

    def test_copy_out_and_in(self):
        def scenario(runtime):
            container = self.ready(runtime, "echo inside > /tmp/file; " + LOOP)
            target = self.engine.home / "copied"
            self.check(self.engine("cp", f"{container}:/tmp/file", target))
            self.assertEqual(target.read_text(), "inside\n")
            self.check(self.engine("cp", target, f"{container}:/home/copied"))
            return self.check(self.engine("exec", container, "cat", "/home/copied"), out="inside\n").out
        self.compare(scenario)

    # -- resources ----------------------------------------------------------------------------------------------------

    def test_pause_freezes_and_unpause_thaws(self):
        def frozen(container):
            return self.cgroup_file(container, ("freezer", "freezer.state"), "cgroup.freeze") in ("FROZEN", "1")

        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            self.check(self.engine("pause", container))
            self.assertTrue(frozen(container))
            self.assertEqual(self.status(container), "paused 0 false")
            refused = self.check(self.engine("exec", container, "true"), 1)
            self.assertIn(b"paused", refused.err)
            again = self.check(self.engine("pause", container), 1)
            self.check(self.engine("unpause", container))
            self.assertFalse(frozen(container))
            self.check(self.engine("exec", container, "echo", "alive"), out="alive\n")
            return refused.code, again.code, self.status(container)
        self.compare(scenario)

    def test_paused_container_can_be_killed(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, *SLEEPER)
            self.check(self.engine("pause", container))
            killed = self.engine("rm", "-f", container)
            return self.check(killed).code
        self.compare(scenario)

    def test_update_changes_the_limits(self):
        def limits(container):
            return (self.cgroup_file(container, ("memory", "memory.limit_in_bytes"), "memory.max"),
                    self.cgroup_file(container, ("cpu", "cpu.cfs_quota_us"), "cpu.max"),
                    self.cgroup_file(container, ("pids", "pids.max"), "pids.max"),
                    self.cgroup_file(container, ("cpu", "cpu.shares"), "cpu.weight"))

        def scenario(runtime):
            container = self.engine.begin(runtime, "--memory", "64m", "--memory-swap", "128m", "--cpus", "0.5",
                                          "--pids-limit", "50", *SLEEPER)
            before = limits(container)
            self.assertEqual(before[0], str(64 << 20))
            self.check(self.engine("update", "--memory", "80m", "--memory-swap", "160m", container))
            memory = limits(container)
            self.assertEqual((memory[0], memory[1:]), (str(80 << 20), before[1:]), "only the memory limit may change")
            self.check(self.engine("update", "--cpus", "1", "--pids-limit", "60", "--cpu-shares", "512", container))
            self.check(self.engine("exec", container, "true"))
            return before, memory, limits(container)
        self.compare(scenario)

    def test_memory_limit_kills(self):
        # tail of an endless line keeps all of it in memory.
        def scenario(runtime):
            container = self.engine.begin(runtime, "--memory", "16m", "--memory-swap", "16m", "--", "tail", "/dev/zero")
            self.check(self.engine("wait", container), out="137\n")
            return self.status(container)
        self.compare(scenario)

    def test_process_limit_refuses_the_next_fork(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--pids-limit", "4", "--", "sh", "-c",
                                   "sleep 3 & sleep 3 & sleep 3 & sleep 3 & sleep 3 & echo not reached")
            self.assertIn(b"can't fork", done.err)
            return self.check(done, 2, "").code
        self.compare(scenario)

    def test_cpu_set_is_applied(self):
        def scenario(runtime):
            done = self.engine.run(runtime, "--rm", "--cpuset-cpus", "0", "--", "grep", "Cpus_allowed_list",
                                   "/proc/self/status")
            return self.check(done, out="Cpus_allowed_list:\t0\n").out
        self.compare(scenario)

    # -- the engine ------------------------------------------------------------------------------------------------

    def test_version_of_the_default_runtime_is_understood(self):
        # dockerd runs the default runtime (here the one under test) with --version.
        version = self.engine.default_runtime_version()
        self.assertRegex(version.get(self.engine.subject.name, ""), r"^\d+\.\d+", f"parsed from --version: {version}")

    def test_configuration_of_the_benchmark_is_what_docker_writes(self):
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
        import docker_config

        made = self.check(self.engine("run", "-d", "--runtime", "recorder", image.NAME, "sleep", "100000"))
        written = json.loads((self.engine.home / "recorded.json").read_text())
        self.engine.remove_all()
        written.pop("hooks")  # talks to this dockerd
        if world.cgroup_mounts()[0][0] == 2:
            # Only what the benchmark's cgroup v1 form has; docker adds a cgroup namespace and drops v1's own knobs.
            written["linux"]["namespaces"] = [n for n in written["linux"]["namespaces"] if n["type"] != "cgroup"]
        container = made.text.strip()
        ours = docker_config.generate(container, written["root"]["path"], self.engine.home / "data/containers" / container,
                                      ["sleep", "100000"])
        for configuration in (written, ours):
            for rule in configuration["linux"]["seccomp"]["syscalls"]:
                rule["names"].sort()
            if world.cgroup_mounts()[0][0] == 2:
                configuration["linux"].pop("resources")
        self.assertEqual(written, ours)

    def test_log_follows_until_the_end(self):
        def scenario(runtime):
            container = self.engine.begin(runtime, "--", "sh", "-c",
                                          "for i in 1 2 3 4 5; do echo line $i; usleep 100000; done")
            return self.check(self.engine("logs", "-f", container), out="".join(f"line {i}\n" for i in range(1, 6))).out
        self.compare(scenario)

    def test_much_output_is_complete(self):
        def scenario(runtime):
            done = self.check(self.engine.run(runtime, "--rm", "--", "seq", "1", "200000"))
            self.assertEqual(done.out, "".join(f"{n}\n" for n in range(1, 200001)).encode())
            return hashlib.sha256(done.out).hexdigest()
        self.compare(scenario)
