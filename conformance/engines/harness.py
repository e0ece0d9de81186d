"""The comparison: every scenario runs once with runc and once with the runtime under test, in the same engine.

A scenario is a function of a runtime that uses the engine and returns what a user of it sees (exit codes and stdout,
with ids made equal). It checks the facts that must hold with any runtime; `compare` then requires that both runs
returned the same, and after each run that nothing is left (leftovers.py).

Environment, set by ./run: RUNTIME (path of the runtime under test), WORK (a directory of this world).
"""

import os
import re
import shutil
import unittest
from dataclasses import dataclass
from pathlib import Path

import image
import leftovers
import processes


# Shell: waits until the terminal has the size that processes.Terminal gives it (clients pass it on after the start).
WAIT_FOR_SIZE = ("n=0; until [ \"$(stty size 2>/dev/null)\" = '37 111' ] || [ $n -ge 200 ]; "
                 "do usleep 50000; n=$((n+1)); done; ")


@dataclass(frozen=True)
class Runtime:
    """One runtime: `name` as dockerd registers it, `path` of the program."""

    name: str
    path: str


def reference():
    path = shutil.which("runc")
    if path is None:
        raise RuntimeError("runc is not installed (Debian package runc)")
    return Runtime("reference", path)


def subject():
    return Runtime("subject", os.environ["RUNTIME"])


def work():
    """The directory of this world that everything of a test goes in."""
    return Path(os.environ["WORK"])


def program(name, package):
    """Path of an engine's program: the distribution's own before one that somebody put in /usr/local."""
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") or shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed (Debian package {package})")
    return path


def archive():
    """The test image as a tar that all engines load; written once."""
    path = work() / "image.tar"
    if not path.exists():
        image.write_archive(path)
    return path


def rootfs_tar():
    """The test image's file system as a plain tar; written once."""
    path = work() / "rootfs.tar"
    if not path.exists():
        image.write_rootfs_tar(str(path))
    return path


def plain(text, *names):
    """`text` with what differs between two equal runs replaced: 64-digit ids, their 12-digit form, and `names`."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    for name in names:
        text = text.replace(name, "<name>")
    text = re.sub(r"\b[0-9a-f]{64}\b", "<id>", text)
    return re.sub(r"\b[0-9a-f]{12}\b", "<short id>", text)


def comparable_mounts(text):
    """A dump of mountinfo lines (without their numbers) with what no user can tell apart made equal.

    Peer groups are numbered anew for each mount. A masked path reads as empty, whichever empty thing is mounted there.
    """
    text = re.sub(r"\b(shared|master|propagate_from):\d+", r"\1:<n>", text)
    text = re.sub(r"^/ (/(?:proc|sys)/\S+) ro,\S+ .*- tmpfs tmpfs ro\S*$", r"\1: masked directory", text, flags=re.M)
    return re.sub(r"^/null (/(?:proc|sys)/\S+) .*$", r"\1: masked file", text, flags=re.M)


class EngineCase(unittest.TestCase):
    """Base of all engine tests. A subclass sets `engine` (started by its setUpClass)."""

    engine = None
    maxDiff = None

    @classmethod
    def start(cls, engine_class):
        """Starts the engine for the class and takes it down after the last test, when nothing may be left at all."""
        world_before = leftovers.Snapshot(())
        cls.engine = engine_class(reference(), subject())

        def down():
            cls.engine.stop()
            leftovers.wait_for_agents_to_leave()
            leftovers.wait_for_none(world_before)

        cls.addClassCleanup(down)
        cls.engine.start()

    def compare(self, scenario):
        """Runs `scenario(runtime)` with both runtimes; both must return the same and leave nothing."""
        seen = {}
        for runtime in (self.engine.reference, self.engine.subject):
            with self.subTest(runtime=runtime.path):
                before = leftovers.Snapshot(self.engine.roots(runtime))
                try:
                    seen[runtime.name] = scenario(runtime)
                finally:
                    self.engine.remove_all()
                leftovers.wait_for_none(before)
        if len(seen) == 2:
            self.assertEqual(seen["reference"], seen["subject"], "the runtime under test differs from runc")

    def check(self, outcome, code=0, out=None):
        """`outcome` has this exit code and, if given, this stdout (text); the failure shows all of it."""
        self.assertEqual(outcome.code, code, f"exit code of {outcome}\n{self.engine.log_tail()}")
        if out is not None:
            self.assertEqual(outcome.text, out, str(outcome))
        return outcome

    def terminal(self, argv, **options):
        """A Terminal that is closed at the end of the test."""
        terminal = processes.Terminal(argv, env=self.engine.env, noise=self.engine.noise, **options)
        self.addCleanup(terminal.close)
        return terminal
