"""vminitd's agent as a plain process of this host, for tests that need no VM: the same calls, streams over Unix sockets.

    with HostAgent(cgroup_prefix="/e2e-1") as host, Agent(host) as agent:
        guest = Guest(host, agent, rootfs=busybox_rootfs(folder))

It has what a Machine has for a Guest: dial(), listen(), new_port(). Needs root; the caller should be in namespaces of
its own (conformance/lib/isolation.py).
"""

import pathlib
import shutil
import socket
import subprocess
import tempfile

from machine import AGENT_PORT, BIN, DIES_WITH_PARENT, FIRST_STDIO_PORT, SECONDS, listen_on, until


class HostAgent:
    def __init__(self, cgroup_prefix, *arguments):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="arca-agent-"))
        self.sockets = self.folder / "s"
        self.sockets.mkdir(mode=0o700)
        self.state = self.folder / "state"
        self.log = self.folder / "log"
        self.next_port = FIRST_STDIO_PORT
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*DIES_WITH_PARENT, str(BIN / "vminitd"), "agent", "--transport", f"unix://{self.sockets}", "--state-root", str(self.state),
                 "--cgroup-prefix", cgroup_prefix, "--vmexec", str(BIN / "vmexec"), "--log-level", "debug",
                 *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self):
        until(lambda: (self.sockets / str(AGENT_PORT)).exists() or self.process.poll() is not None, "the agent listens")
        if self.process.poll() is not None:
            raise AssertionError(f"the agent ended: {self.log_text()}")
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends it with SIGTERM; gives its exit code."""
        self.process.terminate()
        code = self.process.wait(SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)
        return code

    def log_text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def dial(self, port=AGENT_PORT, seconds=SECONDS):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(seconds)
        stream.connect(str(self.sockets / str(port)))
        return stream

    def listen(self, port, backlog=128):
        return listen_on(str(self.sockets / str(port)), SECONDS, backlog)

    def new_port(self):
        self.next_port += 1
        return self.next_port - 1
