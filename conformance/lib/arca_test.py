"""The frame of the end-to-end tests: a runtime, a busybox root file system, containers, and a leak check.

RUNTIME names the runtime under test. It may also be runc or crun: that is how the tests themselves are tested.
What is asked of ours alone is marked with `ours_only` and says why.
"""

import contextlib
import copy
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import isolation
from leaks import Snapshot, agent_pids, all_processes, describe, process_state, read_text
from terminal import FdSocket, Terminal

HERE = os.path.dirname(os.path.abspath(__file__))
BUILT = os.path.join(HERE, "..", "..", "build", "release", "bin", "arca-runtime")
RUNTIME = shutil.which(os.environ.get("RUNTIME") or os.path.normpath(BUILT)) or ""
KIND = {"runc": "runc", "crun": "crun"}.get(os.path.basename(RUNTIME), "arca")
# Not all that busybox has: a copy of the root file system is made for every bundle.
APPLETS = """[ awk basename cat chmod chown cp cut dd dirname echo env expr false find grep head hostname id ifconfig ip
    httpd kill link ln ls mkdir mkfifo mknod mktemp mount mv nc nproc nslookup od ping printenv printf ps pwd readlink rm rmdir sed seq setsid
    sh sha256sum sleep sort stat stty sync tail tee test timeout touch tr true tty umount uname usleep wc wget which xxd yes"""
# With ARCA_SANDBOX=vm the same tests run their containers in virtual machines.
SANDBOX = (os.environ.get("ARCA_SANDBOX") or "local").partition("=")[0]
SECONDS = 15 if SANDBOX == "local" else 60  # no call of a runtime that works comes near it

TAG = isolation.enter(hide_unified_cgroup=KIND == "crun")  # part of every container's id
if KIND == "crun":
    os.makedirs("/run/crun", exist_ok=True)  # it makes this folder whatever --root says
TOP = tempfile.mkdtemp(prefix=f"{TAG}-")
os.chmod(TOP, 0o755)  # users of a container's user namespace must get through
KEPT_PREFIXES = ("ARCA_", "ASAN_", "UBSAN_", "TSAN_")


def ours_only(reason):
    """Skips with other runtimes what only our contract asks for, or what they do differently; says why.

    E2E_ALL=1 runs it nevertheless, to see it fail.
    """
    return unittest.skipUnless(KIND == "arca" or os.environ.get("E2E_ALL"), reason)


def unlike(kind, reason):
    """Skips with one runtime what it does differently; says why."""
    return unittest.skipIf(KIND == kind and not os.environ.get("E2E_ALL"), f"{kind}: {reason}")


def local_only(reason):
    """Skips with a guest what only processes of this host can do, or what looks at them; says why."""
    return unittest.skipUnless(SANDBOX == "local" or os.environ.get("E2E_ALL"), f"in a guest: {reason}")


def killed_by(number):
    """What a caller sees of a process that a signal ended: a stand-in tells it by its exit code."""
    return -number if SANDBOX == "local" else 128 + number


def until(condition, what, seconds=SECONDS):
    """Waits until `condition()` is true and returns its value; `what` names it in the error."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s this did not happen: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def merge(base, changes):
    """`base` with `changes` laid over it; None removes a member, lists are replaced."""
    for key, value in changes.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = copy.deepcopy(value)
    return base


def environment(**extra):
    """What the runtime finds in its environment: little, and nothing of the test program's by accident."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT_PREFIXES)}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": TOP, "ARCA_AGENT_IDLE_SECONDS": "1",
            **kept, **extra}


def wait_process(process, seconds=SECONDS, meanwhile=lambda: None):
    """Exit code of a child by a deadline; after it the child is killed and the test fails.

    `meanwhile` is called now and then: the kernel ends the first process of a process namespace only when all
    others of it are reaped, so a caller that waits for a `delete` must go on reaping, as every engine does.
    """
    if process.returncode is not None:
        return process.returncode  # a poll() has reaped it already
    deadline = time.monotonic() + seconds
    pidfd = os.pidfd_open(process.pid)  # works for a zombie too
    try:
        while not select.select([pidfd], [], [], 0.05)[0]:
            meanwhile()
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise AssertionError(f"still running after {seconds} s: {process.args}")
    finally:
        os.close(pidfd)
    return process.wait()


@functools.lru_cache(maxsize=None)
def busybox_rootfs():
    """The root file system that every bundle gets a copy of."""
    root = os.path.join(TOP, "rootfs")
    for folder in ("bin", "dev", "etc", "home", "proc", "root", "run", "srv/app", "sys", "tmp", "var"):
        os.makedirs(os.path.join(root, folder))
    shutil.copy("/bin/busybox", os.path.join(root, "bin/busybox"))
    for name in APPLETS.split():
        os.symlink("busybox", os.path.join(root, "bin", name))
    for name, text in (("passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv/app:/bin/sh\n"),
                       ("group", "root:x:0:\nwheel:x:10:\napp:x:1000:\n")):
        with open(os.path.join(root, "etc", name), "w", encoding="ascii") as file:
            file.write(text)
    return root


@functools.lru_cache(maxsize=None)
def default_config():
    """What `spec` of the runtime under test writes."""
    folder = tempfile.mkdtemp(dir=TOP)
    subprocess.run([RUNTIME, "spec"], cwd=folder, check=True, env=environment(), timeout=SECONDS,
                   stdin=subprocess.DEVNULL)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return json.load(file)


class Result:
    """How a command ended and what it wrote."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.raw, self.raw_err = argv, code, out, err

    @property
    def out(self):
        return self.raw.decode(errors="replace")

    @property
    def err(self):
        return self.raw_err.decode(errors="replace")

    def __str__(self):
        return f"{' '.join(map(str, self.argv))}\nexit code {self.code}\nout: {self.out!r}\nerr: {self.err!r}"


class Bundle:
    def __init__(self, path, config):
        self.path, self.config = path, config
        self.rootfs = os.path.join(path, "rootfs")

    def write(self):
        with open(os.path.join(self.path, "config.json"), "w", encoding="utf-8") as file:
            json.dump(self.config, file)

    def file(self, name):
        return os.path.join(self.rootfs, name)


class Case(unittest.TestCase):
    """One claim. Starts from an empty state root and must leave nothing behind."""

    maxDiff = None
    roots = []
    reaps_while_calling = True
    durations = []
    _folders = 0

    def shortDescription(self):
        return None

    def setUp(self):
        if not RUNTIME:
            self.fail(f"the runtime under test is not there: {os.environ.get('RUNTIME') or BUILT}")
        default_config()
        busybox_rootfs()
        number = len(Case.roots)
        self.dir = os.path.join(TOP, f"t{number}")
        self.root = os.path.join(TOP, f"r{number}")  # stays until the end: its agent may still be idling
        os.mkdir(self.dir)
        Case.roots.append(self.root)
        self.ids, self.processes, self.statuses, self._begin = [], [], {}, time.monotonic()
        self.before = Snapshot(TAG)
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.addCleanup(self._check_leaks)
        self.addCleanup(self._delete_containers)
        self.addCleanup(lambda: Case.durations.append((time.monotonic() - self._begin, self.id())))

    def _delete_containers(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for identity in self.ids:
            if os.path.exists(os.path.join(self.root, identity)):
                self.ok("delete", "--force", identity)

    def _check_leaks(self):
        leaks = self.before.leaks(self.dir, [self.root], 3, reap=self.reap)
        if leaks:
            self.before.clean(self.reap)
            shutil.rmtree(self.root, ignore_errors=True)
            self.fail("left behind:\n  " + "\n  ".join(leaks))

    def reap(self):
        """Collects the ended children that no Popen object of this test waits for, and keeps their statuses."""
        known = {process.pid for process in self.processes}
        for pid in all_processes() - known:
            if process_state(pid) == ("Z", os.getpid()):
                with contextlib.suppress(ChildProcessError):
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        self.statuses[pid] = status

    # -- calling the runtime

    def command(self, *words, root=None):
        return [RUNTIME, "--root", root or self.root, *map(str, words)]

    def spawn(self, argv, **options):
        """A child that this test waits for itself; killed at the end of the test if need be."""
        options.setdefault("env", environment())
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(argv, **options)
        self.processes.append(process)
        return process

    def call(self, argv, stdin=b"", seconds=SECONDS, **options):
        """Runs a command to its end. Its output goes to files: what a container holds open delays nothing."""
        with tempfile.TemporaryFile(dir=self.dir) as out, tempfile.TemporaryFile(dir=self.dir) as err, \
                tempfile.TemporaryFile(dir=self.dir) as given:
            if isinstance(stdin, bytes):
                given.write(stdin)
                given.seek(0)
                stdin = given
            options.setdefault("stdout", out)
            options.setdefault("stderr", err)
            process = self.spawn(argv, stdin=stdin, **options)
            try:
                code = wait_process(process, seconds, self.reap if self.reaps_while_calling else lambda: None)
            finally:
                self.processes.remove(process)
            out.seek(0)
            err.seek(0)
            return Result(argv, code, out.read(), err.read())

    def rt(self, *words, root=None, **options):
        """Calls the runtime with this test's state root."""
        return self.call(self.command(*words, root=root), **options)

    def ok(self, *words, **options):
        """Calls the runtime and wants exit code 0."""
        result = self.rt(*words, **options)
        self.assertEqual(result.code, 0, result)
        return result

    def fails(self, *words, code=1, says=(), **options):
        """Calls the runtime and wants an error: this code, one line on stderr with each of the texts, no output.

        crun words its errors in its own way, so with it the texts are not looked for.
        """
        result = self.rt(*words, **options)
        self.assertEqual(result.code, code, result)
        lines = result.err.splitlines()
        self.assertEqual(len(lines), 1, f"one line on stderr is wanted\n{result}")
        for text in () if KIND == "crun" else (says,) if isinstance(says, str) else says:
            self.assertIn(text.lower(), lines[0].lower(), result)
        self.assertEqual(result.out, "", result)
        return result

    # -- making containers

    def new_id(self, note="c"):
        Case._folders += 1
        return f"{TAG}-{Case._folders}-{note}"

    def bundle(self, *args, rootfs=True, writable=False, mounts=(), **changes):
        """A bundle whose program is `args`; `changes` are merged into the config, `mounts` appended."""
        Case._folders += 1
        path = os.path.join(self.dir, f"b{Case._folders}")
        os.mkdir(path)
        config = copy.deepcopy(default_config())
        config["process"]["terminal"] = False
        if args:
            config["process"]["args"] = list(args)
        config["root"] = {"path": "rootfs", "readonly": not writable}
        config["mounts"] += copy.deepcopy(list(mounts))
        bundle = Bundle(path, merge(config, changes))
        if rootfs:
            subprocess.run(["cp", "-a", busybox_rootfs(), bundle.rootfs], check=True)
        bundle.write()
        return bundle

    def create(self, bundle, *flags, identity=None, **options):
        """Creates a container that is deleted at the end of the test; returns its id."""
        identity = identity or self.new_id()
        self.ids.append(identity)
        self.ok("create", "--bundle", bundle.path, *flags, identity, **options)
        return identity

    def start(self, *args, **changes):
        """Creates and starts a container (`sleep 600` if no program is given); returns its id."""
        identity = self.create(self.bundle(*(args or ("sleep", "600")), **changes))
        self.ok("start", identity)
        return identity

    def run_bundle(self, bundle, *flags, identity=None, **options):
        """`run` in the foreground."""
        return self.rt("run", "--bundle", bundle.path, *flags, identity or self.new_id(), **options)

    def inside(self, script, options=None, **changes):
        """Output of a shell script run as the program of a fresh container; it must exit 0."""
        bundle = self.bundle("sh", "-c", script, **changes)
        result = self.run_bundle(bundle, **(options or {}))
        self.assertEqual(result.code, 0, result)
        return result.out

    def exec(self, identity, *words, **options):
        """`exec` in the foreground; the words before the id are flags: exec(id, ["--tty"], "sh")."""
        flags = []
        if words and isinstance(words[0], list):
            flags, words = words[0], words[1:]
        return self.rt("exec", *flags, identity, *words, **options)

    def process_file(self, *args, **members):
        """A file for `exec --process`."""
        Case._folders += 1
        path = os.path.join(self.dir, f"p{Case._folders}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "args": list(args),
                       **members}, file)
        return path

    # -- looking at containers

    def state(self, identity):
        return json.loads(self.ok("state", identity).out)

    def wait_status(self, identity, status, seconds=SECONDS):
        def reached():
            # An init with other processes in its namespace ends only when these have been reaped, and crun calls an
            # ended init that nobody has reaped running.
            self.reap()
            return self.state(identity)["status"] == status
        until(reached, lambda: f"{status}; it is {self.state(identity)}", seconds)

    def wait_text(self, path, text, seconds=SECONDS):
        """Waits until a file holds the text; returns all of it."""
        until(lambda: text in read_text(path), lambda: f"{text!r} in {path}: {read_text(path)!r}", seconds)
        return read_text(path)

    def wait_reaped(self, pid, seconds=SECONDS):
        """Waits as the subreaper that we are for an init or an exec's process; returns its wait status."""
        def ended():
            self.reap()
            return pid in self.statuses
        until(ended, lambda: f"the end of {describe(pid)}", seconds)
        return self.statuses[pid]

    def assert_gone(self, identity):
        """No command knows the id any more and its folder is gone."""
        self.fails("state", identity, says="does not exist")
        self.assertFalse(os.path.exists(os.path.join(self.root, identity)))

    def terminal(self, rows=24, columns=80):
        terminal = Terminal.open(rows, columns)
        self.addCleanup(terminal.close)
        return terminal

    def fd_socket(self, name="console.sock"):
        listener = FdSocket(os.path.join(self.dir, name))
        self.addCleanup(listener.close)
        return listener

    def agents(self):
        return agent_pids(self.root)

    def kill_agents(self, number=signal.SIGKILL):
        """Ends the agents of this test's state root, waits until they are gone; returns how many there were."""
        agents = self.agents()
        for pid in agents.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        for pid in agents.values():
            self.processes_gone([pid])
        return len(agents)

    def processes_gone(self, pids, seconds=SECONDS):
        def gone():
            self.reap()
            return all(process_state(pid)[0] == "" for pid in pids)
        until(gone, lambda: "the end of " + "; ".join(map(describe, pids)), seconds)


def mounts_of(text):
    """Lines of a mountinfo as {mount point: {...}}; of several on one point the last, which is the visible one."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 6 or not right:
            continue
        kind, source, options = right.split(" ", 2)
        found[fields[4]] = {"root": fields[3], "flags": set(fields[5].split(",")), "tags": fields[6:],
                            "type": kind, "source": source, "options": set(options.split(","))}
    return found


def _report_slowest(count=5):
    for seconds, name in sorted(Case.durations, reverse=True)[:count]:
        print(f"{seconds:8.2f} s  {name}", file=sys.stderr)


def main():
    """Runs the tests of the calling file; then every agent must leave by itself and leave no socket."""
    start = Snapshot(TAG)
    program = unittest.main(module="__main__", verbosity=2, exit=False)

    def reap():
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    left = start.leaks(TOP, Case.roots, 15, agents_may_run=False, reap=reap)
    _report_slowest()
    if left:
        print("left behind after all tests:\n  " + "\n  ".join(left), file=sys.stderr)
        start.clean(reap)
    shutil.rmtree(TOP, ignore_errors=True)
    sys.exit(0 if program.result.wasSuccessful() and not left else 1)
