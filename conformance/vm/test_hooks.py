#!/usr/bin/python3
"""Hooks that the agent runs: of configurations and of hooks.d, plain ones and services."""

import pathlib
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
from hook_cases import LISTENER, Folder, Services  # noqa: E402
from host_agent import HostAgent  # noqa: E402
from machine import busybox_rootfs  # noqa: E402


class OnTheHost(Folder, Services, unittest.TestCase):
    """The agent as a plain process of this host."""

    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix=f"{TAG}-")))
        cls.hooks = folder / "hooks.d"
        cls.hooks.mkdir()
        cls.notes = str(folder / "notes")
        pathlib.Path(cls.notes).mkdir(mode=0o777)
        pathlib.Path(cls.notes).chmod(0o777)
        (folder / "listener.c").write_text(LISTENER, encoding="ascii")
        cls.listener = str(folder / "listener")
        subprocess.run(["cc", "-Os", "-o", cls.listener, str(folder / "listener.c")], check=True)
        cls.host = cls.enterClassContext(HostAgent(f"/{TAG}", "--hooks-dir", str(cls.hooks)))
        cls.agent = cls.enterClassContext(Agent(cls.host))
        cls.guest = Guest(cls.host, cls.agent, busybox_rootfs(folder / "rootfs"))
        cls.agent.extension.Version(ext.VersionRequest(), timeout=60)

    def write_hook_file(self, name, text):
        (self.hooks / name).write_text(text, encoding="utf-8")
        self.addCleanup((self.hooks / name).unlink)

    def read_note(self, name):
        return (pathlib.Path(self.notes) / name).read_text()

    def root_processes(self):
        lines = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return lines


if __name__ == "__main__":
    unittest.main(verbosity=2)
