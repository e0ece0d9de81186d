"""Crash-only: every process of the runtime may be killed at any moment.

After the kill `delete --force` must exit 0 and nothing may be left; whatever else is called must answer and not hang.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from arca_test import (TOP, Case, all_processes, environment, main, ours_only, process_state,  # noqa: E402
                       read_text, until, wait_process)
from leaks import sockets_below  # noqa: E402

SHORT = ("-o", os.devnull, "-qq")
LASTING = {"ARCA_AGENT_IDLE_SECONDS": "60"}
REASON = "the others promise nothing of the kind"


def spread(count, points):
    """About `points` of the numbers 1..count: evenly, and each of the last ten, where things are made final."""
    step = max(1, count // points)
    return sorted({*range(1, count + 1, step), *range(max(1, count - 10), count + 1)})


class CrashCase(Case):
    def setUp(self):
        super().setUp()
        # Those that were told to stay long leave when asked; runs before the containers are deleted.
        self.addCleanup(self.end_agents)

    def end_agents(self):
        if sockets_below(self.root):
            identity = self.new_id()
            self.ok("create", "--bundle", self.bundle("true").path, identity)
            self.ok("delete", "--force", identity)
        self.kill_agents(signal.SIGTERM)

    def clean_up(self, identity, note):
        """`delete --force` works and leaves nothing."""
        self.ok("delete", "--force", identity)
        leaks = self.before.leaks(self.dir, [self.root], 3, reap=self.reap)
        if leaks:
            self.before.clean(self.reap)
            self.fail(f"left behind {note}:\n  " + "\n  ".join(leaks))

    def prepared(self, bundle, command):
        """A container in the state that `command` needs; returns its id and the words of the command."""
        identity = self.new_id()
        if command in ("create", "run"):
            return identity, [command, *(["--detach"] if command == "run" else []), "--bundle", bundle.path, identity]
        self.ok("create", "--bundle", bundle.path, identity)
        if command != "start":
            self.ok("start", identity)
        return identity, {"start": ["start", identity], "exec": ["exec", "-d", identity, "sleep", "601"],
                          "exec in front": ["exec", identity, "true"], "kill": ["kill", identity, "KILL"],
                          "delete": ["delete", "--force", identity], "state": ["state", identity]}[command]

    def tolerant(self, *words):
        """Runs a command that may fail but must end; returns its exit code."""
        return self.rt(*words, seconds=20).code


@ours_only(REASON)
class TheCliIsKilled(CrashCase):
    def calls_of(self, words):
        """Each system call of the command as (name, how often that name came up to then): strace counts by name."""
        log = os.path.join(self.dir, "trace")
        subprocess.run(["strace", "-o", log, "-qq", *self.command(*words)], check=True, env=environment(),
                       stdin=subprocess.DEVNULL, timeout=30)
        seen, calls = {}, []
        with open(log, encoding="utf-8", errors="replace") as file:
            for line in file:
                name = line.partition("(")[0]
                if name.isidentifier() and name not in ("exit_group", "execve"):
                    seen[name] = seen.get(name, 0) + 1
                    calls.append((name, seen[name]))
        return calls

    def at_every_step(self, command, points):
        bundle = self.bundle("sleep", "600")
        identity, words = self.prepared(bundle, command)
        calls = self.calls_of(words)
        self.clean_up(identity, "without a kill")
        killed = 0
        for number in spread(len(calls), points):
            name, nth = calls[number - 1]
            with self.subTest(command=command, syscall=name, occurrence=nth, number=number, of=len(calls)):
                identity, words = self.prepared(bundle, command)
                process = self.spawn(["strace", *SHORT, "-e", f"inject={name}:signal=KILL:when={nth}",
                                      *self.command(*words)],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                code = wait_process(process, 30, self.reap)
                self.processes.remove(process)
                killed += code == -signal.SIGKILL
                self.tolerant("state", identity)
                self.clean_up(identity, f"after a kill at {name} number {nth} of {command}")
        self.assertGreater(killed, points // 2, "the kills hit")

    def test_in_create(self):
        self.at_every_step("create", 40)

    def test_in_run(self):
        self.at_every_step("run", 25)

    def test_in_start(self):
        self.at_every_step("start", 15)

    def test_in_exec(self):
        self.at_every_step("exec", 25)

    def test_in_kill(self):
        self.at_every_step("kill", 8)

    def test_in_delete(self):
        self.at_every_step("delete", 20)

    def test_an_interrupted_create_frees_the_id(self):
        bundle, identity = self.bundle("sleep", "600"), self.new_id()
        for call in ("mkdir:signal=KILL:when=1", "socket:signal=KILL:when=1", "sendmsg:signal=KILL:when=1",
                     "renameat:signal=KILL:when=1"):
            process = self.spawn(["strace", *SHORT, "-e", f"inject={call}",
                                  *self.command("create", "--bundle", bundle.path, identity)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_process(process, 30, self.reap)
            self.processes.remove(process)
            self.ok("delete", "--force", identity)
            self.ok("create", "--bundle", bundle.path, identity)
            self.assertEqual(self.state(identity)["status"], "created")
            self.clean_up(identity, "after the second create")


@ours_only(REASON)
class TheBodyIsKilled(CrashCase):
    """vmexec, before it has become the program."""

    @staticmethod
    def bodies():
        return [pid for pid in all_processes() if read_text(f"/proc/{pid}/cmdline").split("\0")[0].endswith("vmexec")]

    def during(self, command, delays, which):
        """Kills the oldest or the newest vmexec a while after it appears; returns how often there was one to kill."""
        bundle, hit = self.bundle("sleep", "600"), 0
        for delay in delays:
            with self.subTest(command=command, delay=delay, which=which):
                identity, words = self.prepared(bundle, command)
                others = set(self.bodies())
                process = self.spawn(self.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                found, deadline = None, time.monotonic() + 2
                while not found and process.poll() is None and time.monotonic() < deadline:
                    found = sorted(set(self.bodies()) - others)
                if found:
                    time.sleep(delay)
                    found = sorted(set(self.bodies()) - others) or found
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(found[which], signal.SIGKILL)
                        hit += 1
                wait_process(process, 20, self.reap)
                self.processes.remove(process)
                self.tolerant("state", identity)
                self.clean_up(identity, f"after a kill of vmexec {delay} s into {command}")
        return hit

    DELAYS = tuple(step / 2000 for step in range(0, 24))

    def test_in_create(self):
        for which in (0, -1):
            self.assertGreater(self.during("create", self.DELAYS, which), 0, "there was a vmexec to kill")

    def test_in_run(self):
        self.assertGreater(self.during("run", self.DELAYS[::2], -1), 0, "there was a vmexec to kill")

    def test_in_exec(self):
        for which in (0, -1):
            self.during("exec", self.DELAYS[::2], which)

    def test_a_created_containers_init(self):
        identity = self.create(self.bundle("sleep", "600"))
        os.kill(self.state(identity)["pid"], signal.SIGKILL)
        self.wait_status(identity, "stopped")
        self.fails("start", identity)
        self.ok("delete", identity)
        self.assert_gone(identity)


@ours_only(REASON)
class TheAgentIsKilled(CrashCase):
    """vminitd, which keeps nothing in memory that is not on disk."""

    def during(self, command, delays):
        bundle, hit = self.bundle("sleep", "600"), 0
        for delay in delays:
            with self.subTest(command=command, delay=delay):
                identity, words = self.prepared(bundle, command)
                process = self.spawn(self.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     env=environment(**LASTING))
                time.sleep(delay)
                hit += self.kill_agents()
                wait_process(process, 20, self.reap)
                self.processes.remove(process)
                self.tolerant("state", identity)
                self.clean_up(identity, f"after a kill of vminitd {delay} s into {command}")
        self.assertGreater(hit, 0, "there was an agent to kill")

    DELAYS = tuple(step / 1000 for step in range(0, 24))

    def test_in_create(self):
        self.during("create", self.DELAYS)

    def test_in_start(self):
        self.during("start", self.DELAYS[:10])

    def test_in_exec(self):
        self.during("exec", self.DELAYS[::2])

    def test_in_a_foreground_exec(self):
        self.during("exec in front", self.DELAYS[::2])

    def test_in_delete(self):
        self.during("delete", self.DELAYS[::2])

    def between_any_two_commands(self, number):
        lasting, found = {"env": environment(**LASTING)}, 0
        out, pid_file = os.path.join(self.dir, "out"), os.path.join(self.dir, "pid")
        script = 'trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.05; done'
        with open(out, "wb") as file:
            c = self.create(self.bundle("sh", "-c", script), stdout=file, **lasting)
        found += self.kill_agents(number)
        self.assertEqual(self.state(c)["status"], "created")
        self.ok("start", c, **lasting)
        self.wait_text(out, "ready\n")
        found += self.kill_agents(number)
        self.assertEqual(self.exec(c, "sh", "-c", "echo in; exit 5", **lasting).code, 5)
        found += self.kill_agents(number)
        self.ok("exec", "-d", "--pid-file", pid_file, c, "sleep", "601", **lasting)
        found += self.kill_agents(number)
        pids = json.loads(self.ok("ps", "--format", "json", c, **lasting).out)
        self.assertEqual(sorted([self.state(c)["pid"], int(read_text(pid_file))]),
                         sorted(pid for pid in pids if "sleep\x000.05" not in read_text(f"/proc/{pid}/cmdline")
                                and process_state(pid)[0]))
        self.kill_agents(number)
        self.assertIn(c, self.ok("list", "-q").out)
        self.ok("kill", c, "TERM", **lasting)
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(out), "ready\nbye\n")
        self.kill_agents(number)
        self.ok("delete", c, **lasting)
        self.assert_gone(c)
        self.assertGreaterEqual(found, 3, "there were agents to kill")

    def test_between_any_two_commands(self):
        self.between_any_two_commands(signal.SIGKILL)

    def test_asked_to_go_between_any_two_commands(self):
        self.between_any_two_commands(signal.SIGTERM)

    def test_while_a_run_is_in_the_foreground(self):
        bundle = self.bundle("sh", "-c", "cat; exit 9")
        process = self.spawn(self.command("run", "--bundle", bundle.path, self.new_id()), stdin=-1,
                             stdout=-1, env=environment(**LASTING))
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"one\n")
        self.assertEqual(self.kill_agents(), 1)
        process.stdin.write(b"two\n")
        process.stdin.close()
        self.assertEqual(process.stdout.read(), b"two\n")
        self.assertEqual(wait_process(process), 9)
        process.stdout.close()

    def test_while_an_exec_is_in_the_foreground(self):
        c = self.start()
        process = self.spawn(self.command("exec", c, "sh", "-c", "cat; exit 9"), stdin=-1, stdout=-1,
                             env=environment(**LASTING))
        process.stdin.write(b"one\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), b"one\n")
        self.assertGreaterEqual(self.kill_agents(), 1)
        process.stdin.close()
        self.assertEqual(process.stdout.read(), b"")
        self.assertEqual(wait_process(process), 9)
        process.stdout.close()

    def test_while_a_terminal_is_in_use(self):
        terminal = self.terminal()
        child = terminal.spawn(self.command("run", "--bundle", self.bundle(
            "sh", "-c", "echo ready; read line; echo got $line; exit 6", process={"terminal": True}).path,
            self.new_id()), env=environment(**LASTING))
        self.processes.append(child)
        terminal.read_until(b"ready")
        self.assertEqual(self.kill_agents(), 1)
        terminal.send(b"typed\r")
        terminal.read_until(b"got typed")
        self.assertEqual(wait_process(child), 6)


@ours_only("the others have no agent")
class TheAgentLeaves(CrashCase):
    def wait_no_agent(self):
        until(lambda: self.agents() == {}, lambda: f"the agents {self.agents()} leave", 15)
        # The gate of a container that was not started is the container's own socket, not the agent's.
        self.assertEqual([path for path in sockets_below(self.root) if not path.endswith("/guest/gate.sock")], [])

    def test_when_nothing_needs_it_and_the_next_one_takes_over(self):
        c = self.start()
        first = self.agents()
        self.assertEqual(len(first), 1, "an agent runs right after start")
        init = self.state(c)["pid"]
        self.wait_no_agent()
        self.processes_gone(first.values())
        self.assertEqual((self.state(c)["status"], self.state(c)["pid"]), ("running", init))
        self.assertEqual(self.agents(), {}, "state needs no agent")
        self.assertEqual(self.exec(c, "echo", "adopted").out, "adopted\n")
        second = self.agents()
        self.assertEqual(len(second), 1)
        self.assertNotEqual(first, second)
        self.ok("kill", c, "KILL")
        self.wait_status(c, "stopped")
        self.wait_no_agent()
        self.ok("delete", c)
        self.assert_gone(c)

    def test_a_created_container_is_started_by_the_next_one(self):
        out = os.path.join(self.dir, "out")
        with open(out, "wb") as file:
            c = self.create(self.bundle("sh", "-c", "echo ran"), stdout=file)
        self.wait_no_agent()
        self.assertEqual(self.state(c)["status"], "created")
        self.ok("start", c)
        self.wait_status(c, "stopped")
        self.assertEqual(read_text(out), "ran\n")

    def test_a_container_that_ended_meanwhile_is_seen_stopped(self):
        c = self.start()
        pid = self.state(c)["pid"]
        self.wait_no_agent()
        os.kill(pid, signal.SIGKILL)
        self.wait_reaped(pid)
        self.assertEqual(self.state(c)["status"], "stopped")
        self.fails("exec", c, "true", code=255, says="cannot exec in a stopped container")
        self.ok("delete", c)

    def test_commands_that_read_start_none(self):
        os.mkdir(self.root, 0o700)  # an explicit --root that is not there is an error of list
        for words in (["list"], ["--version"], ["features"]):
            self.ok(*words)
        self.fails("state", self.new_id(), says="does not exist")
        self.assertEqual(self.agents(), {})

    def test_one_agent_serves_a_state_root_at_a_time(self):
        """Many calls at once, while agents come and go: each call works, and there is never a second agent."""
        bundle = self.bundle("sh", "-c", "exit 11")
        for _ in range(3):
            running = [self.spawn(self.command("run", "--bundle", bundle.path, self.new_id()),
                                  env=environment(ARCA_AGENT_IDLE_SECONDS="0")) for _ in range(6)]
            codes = [wait_process(process, 30, self.reap) for process in running]
            self.assertEqual(codes, [11] * 6)
            for process in running:
                self.processes.remove(process)
        owners = {}
        for root, pid in ((self.root, pid) for pid in self.agents().values()):
            owners.setdefault(root, []).append(pid)
        self.assertTrue(all(len(pids) == 1 for pids in owners.values()), owners)

    def test_a_file_of_a_dead_agent_is_no_obstacle(self):
        c = self.start()
        key, = self.agents()
        folder = os.path.join(self.root, "@local", key)
        self.kill_agents()
        left = os.listdir(folder)
        self.assertIn("agent.json", left, "a killed agent cannot tidy up")
        self.assertEqual(self.exec(c, "echo", "fine").out, "fine\n")

    def test_a_stale_record_with_the_number_of_a_living_process_is_no_obstacle(self):
        c = self.start()
        key, = self.agents()
        self.kill_agents()
        path = os.path.join(self.root, "@local", key, "agent.json")
        record = json.loads(read_text(path))
        record["pid"] = os.getpid()
        with open(path, "w", encoding="ascii") as file:
            json.dump(record, file)
        self.assertEqual(self.exec(c, "echo", "fine").out, "fine\n")
        self.assertTrue(os.path.isdir(TOP))


if __name__ == "__main__":
    main()
