"""A lane: one runtime in a world of its own, where commands are run one at a time and all their CPU is counted.

The lane's process is pid 1 of its world, so it reaps what the runtime orphans, and its cgroup is the root of a cgroup
namespace: whatever the runtime starts stays in that subtree, also a background agent that moves itself to "the root"
and a container in a cgroup of its own. CPU of a command = growth of the subtree's counter minus what the lane's own
process used meanwhile. Two other sources are read for comparison: rusage of all that was reaped, and the scheduler's
counters (/proc/PID/schedstat) of all that still lives.

The measuring program talks to a lane over a socket: one JSON object a line each way (`Lane.ask`).
"""

import json
import os
import resource
import select
import signal
import socket
import time
from pathlib import Path

import world

SETTLE_NS = 4_000_000
SETTLE_LIMIT_NS = 2_000_000_000


class Counter:
    """The CPU counter of the world's cgroup subtree, in nanoseconds; cgroup v1's cpuacct or cgroup2's cpu.stat."""

    def __init__(self):
        for version, controllers, point in world.cgroup_mounts():
            if version == 1 and "cpuacct" in controllers.split(","):
                self._path, self._read = f"{point}/cpuacct.usage", self._v1
                return
            if version == 2 and point == "/sys/fs/cgroup":
                self._path, self._read = f"{point}/cpu.stat", self._v2
                return
        raise RuntimeError("no cgroup CPU counter: neither cpuacct (v1) nor cgroup2 at /sys/fs/cgroup")

    @staticmethod
    def _v1(text):
        return int(text)

    @staticmethod
    def _v2(text):
        return int(text.split("usage_usec ")[1].split()[0]) * 1000

    def others(self):
        """What all but the lane's own process have used so far."""
        # This order: asking for the own time brings the kernel's books of the running process up to date.
        own = time.process_time_ns()
        with open(self._path) as file:
            return self._read(file.read()) - own


def processes():
    """Pids of all processes in the world but the lane itself."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def schedstat(pid):
    """Nanoseconds on a CPU of all threads of a process, 0 if it is gone."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    except OSError:
        pass
    return total


def agents(root):
    """Pids of the runtime's resident agents: what they say in their files, and what is called so."""
    found = set()
    for file in Path(root).glob("@local/*/agent.json"):
        try:
            found.add(int(json.loads(file.read_text())["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    for pid in processes():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "vminitd":
                found.add(pid)
        except OSError:
            continue
    return sorted(pid for pid in found if os.path.exists(f"/proc/{pid}/stat"))


def outside_subtree(pid):
    """True if a process sits in a cgroup that the lane's counter does not see."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    path = next((p for c, p in paths.items() if "cpuacct" in c.split(",")), paths.get("", "/"))
    return path.startswith("/..")


class Server:
    """The lane's side of the conversation; runs as pid 1 of the world."""

    def __init__(self, conversation, directory):
        self.conversation, self.directory = conversation, Path(directory)
        self.counter = Counter()
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}

    def serve(self):
        os.chdir("/")
        with self.conversation.makefile("rw") as stream:
            for line in stream:
                request = json.loads(line)
                if request["do"] == "end":
                    break
                try:
                    answer = getattr(self, "do_" + request.pop("do"))(**request)
                except Exception as error:  # told to the asking side, which raises it
                    answer = {"error": f"{type(error).__name__}: {error}"}
                stream.write(json.dumps(answer) + "\n")
                stream.flush()
        return 0

    def _reap(self, wanted=None):
        """Reaps orphans; waits for `wanted` and gives its exit code."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if wanted else os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == wanted:
                return os.waitstatus_to_exitcode(status)

    def _settle(self):
        """Waits until nothing in the world has used a CPU for a moment: work that goes on after a call returned counts."""
        begin = time.monotonic_ns()
        last = self.counter.others()
        while time.monotonic_ns() - begin < SETTLE_LIMIT_NS:
            select.select([], [], [], SETTLE_NS / 1e9)
            self._reap()
            now = self.counter.others()
            if now - last < 20_000:  # the reading itself is good to some microseconds
                return
            last = now

    def _living(self):
        return {pid: schedstat(pid) for pid in processes()}

    def _run(self, argv, cwd, output):
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                   (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                   (os.POSIX_SPAWN_DUP2, 1, 2)]
        os.chdir(cwd)
        try:
            pid = os.posix_spawn(argv[0], argv, self.environment, file_actions=actions, setsigdef=[signal.SIGPIPE])
        finally:
            os.chdir("/")
        return self._reap(pid)

    def do_measure(self, calls, cwd, root):
        """Runs `calls` (argument lists) one after the other as one measured piece."""
        output = self.directory / "output"
        output.write_bytes(b"")
        self._settle()
        living = self._living()
        outside = {pid: living.get(pid, 0) for pid in agents(root) if outside_subtree(pid)}
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        before = self.counter.others()
        begin = time.perf_counter_ns()
        codes = []
        for argv in calls:
            codes.append(self._run(argv, cwd, output))
            if codes[-1]:
                break
        wall = time.perf_counter_ns() - begin
        self._settle()
        cpu = self.counter.others() - before
        reaped_after = resource.getrusage(resource.RUSAGE_CHILDREN)
        living_after = self._living()
        resident = agents(root)
        for pid in resident:
            if outside_subtree(pid):
                cpu += living_after.get(pid, 0) - outside.get(pid, 0)
        seconds = (reaped_after.ru_utime + reaped_after.ru_stime) - (reaped.ru_utime + reaped.ru_stime)
        # What lived before and was reaped since is in rusage with its whole life: take the part before off again.
        second = seconds * 1e9 + sum(living_after.values()) - sum(living.values())
        return {"codes": codes, "wall": wall, "cpu": cpu, "cpu_by_process": second,
                "cpu_of_agent": sum(living_after.get(pid, 0) - living.get(pid, 0) for pid in resident),
                "output": output.read_text(errors="replace")[-2000:]}

    def do_call(self, argv, cwd="/"):
        """Runs a command without measuring; its exit code and output."""
        output = self.directory / "output"
        output.write_bytes(b"")
        code = self._run(argv, cwd, output)
        return {"code": code, "output": output.read_text(errors="replace")[-2000:]}

    def do_agents(self, root):
        return {"pids": agents(root)}

    def do_end_agents(self, root, kill, seconds=60):
        """Kills the resident agents, or waits for them to leave by themselves; how many went."""
        pids = agents(root)
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if kill:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                if not select.select([handle], [], [], seconds)[0]:
                    raise TimeoutError(f"agent {pid} did not leave within {seconds} s")
            except ProcessLookupError:
                pass
            finally:
                os.close(handle)
        self._reap()
        return {"gone": len(pids)}

    def do_memory(self):
        """Proportional and resident memory of every process in the world but the lane, in KiB."""
        self._settle()
        found = []
        for pid in processes():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            values = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
            found.append((name, values["Pss"], values["Rss"]))
        return {"processes": len(found), "pss": sum(f[1] for f in found), "rss": sum(f[2] for f in found),
                "names": sorted({f[0] for f in found}), "charged": self._charged()}

    @staticmethod
    def _charged():
        """KiB that the kernel charges to the world's memory cgroup, page cache and kernel memory included; None without."""
        for path in ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory.current"):
            if os.path.exists(path):
                return int(Path(path).read_text()) // 1024
        return None


class Lane:
    """The measuring program's handle of one runtime's world."""

    def __init__(self, name, path, directory, cgroups):
        self.name, self.path, self.directory = name, path, Path(directory)
        self.root = str(self.directory / "state")
        ours, theirs = socket.socketpair()

        def body():
            ours.close()
            return Server(theirs, self.directory).serve()

        self._world = world.spawn(f"arca-bench-{os.getpid()}-{name}", body, network=False, cgroups=cgroups, init=True)
        theirs.close()
        self._conversation = ours
        self._stream = ours.makefile("rw")

    def ask(self, do, **request):
        """Sends one request and gives the answer; RuntimeError with what went wrong in the lane."""
        self._stream.write(json.dumps({"do": do, **request}) + "\n")
        self._stream.flush()
        line = self._stream.readline()
        if not line:
            raise RuntimeError(f"the lane of {self.name} has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def runtime(self, *arguments):
        """The command line of a call of this runtime."""
        return [self.path, "--root", self.root, *arguments]

    def call(self, *arguments, cwd="/"):
        """A call outside the measurements that must work; RuntimeError with its output."""
        answer = self.ask("call", argv=self.runtime(*arguments), cwd=str(cwd))
        if answer["code"]:
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: exit code {answer['code']}: {answer['output']}")
        return answer["output"]

    def end(self):
        """Ends the world with all that is in it."""
        # Said and not only shown by closing: worlds made later hold a copy of this socket.
        try:
            self._stream.write(json.dumps({"do": "end"}) + "\n")
            self._stream.close()
        except BrokenPipeError:
            pass
        self._conversation.close()
        return self._world.wait()
