#!/usr/bin/python3
"""Hooks that the agent runs: of configurations and of hooks.d, plain ones and services."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import isolation  # noqa: E402

TAG = isolation.enter(hide_unified_cgroup=False)

import machine  # noqa: E402
from agent import Agent, ext, pb  # noqa: E402
from guest import Guest, image_arguments, oci_mounts  # noqa: E402
from hook_cases import LISTENER, Failures, Folder, Services, States, Timeouts  # noqa: E402
from host_agent import HostAgent  # noqa: E402


class OnTheHost(Folder, States, Failures, Timeouts, Services, unittest.TestCase):
    """The agent as a plain process of this host."""

    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix=f"{TAG}-")))
        cls.hooks_dir = folder / "hooks.d"
        cls.hooks_dir.mkdir()
        cls.notes = str(folder / "notes")
        pathlib.Path(cls.notes).mkdir(mode=0o777)
        pathlib.Path(cls.notes).chmod(0o777)
        (folder / "listener.c").write_text(LISTENER, encoding="ascii")
        cls.listener = str(folder / "listener")
        subprocess.run(["cc", "-Os", "-o", cls.listener, str(folder / "listener.c")], check=True)
        cls.host = cls.enterClassContext(HostAgent(f"/{TAG}", "--hooks-dir", str(cls.hooks_dir)))
        cls.agent = cls.enterClassContext(Agent(cls.host))
        cls.guest = Guest(cls.host, cls.agent, machine.busybox_rootfs(folder / "rootfs"))
        cls.agent.extension.Version(ext.VersionRequest(), timeout=60)

    def write_hook_file(self, name, text):
        (self.hooks_dir / name).write_text(text, encoding="utf-8")
        self.addCleanup((self.hooks_dir / name).unlink, missing_ok=True)

    def read_note(self, name):
        return (pathlib.Path(self.notes) / name).read_text()

    def write_note(self, name):
        (pathlib.Path(self.notes) / name).touch()

    def listen_words(self, port):
        """Of the listener: where the agent's own ports are."""
        return ["unix", str(self.host.sockets / str(port))]

    def console(self):
        return self.host.log_text()

    def root_processes(self):
        found = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found[int(path.parent.name)] = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return found

    def kill_root_process(self, pid):
        os.kill(pid, signal.SIGKILL)


class InAVm(machine.ConsoleOnFailure, Folder, States, Failures, Timeouts, Services, unittest.TestCase):
    """The agent as the first process of a VM, which all cases share."""

    notes, listener = "/tmp", "/sbin/listener"

    @classmethod
    def setUpClass(cls):
        missing = machine.missing_programs()
        if missing:
            raise unittest.SkipTest("not found: " + ", ".join(missing))
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix=f"{TAG}-")))
        kernel = machine.guest_kernel.prepare(machine.guest_kernel.CONTAINER)
        listener = machine.static_program(folder, "listener", LISTENER)
        image = machine.guest_image(kernel, folder, *image_arguments(), "--add", f"{listener}=/sbin/listener")
        cls.vm = cls.enterClassContext(machine.Machine(kernel, image, append="-- --log-level debug"))
        cls.vm.wait_agent()
        cls.agent = cls.enterClassContext(Agent(cls.vm))
        cls.guest = Guest(cls.vm, cls.agent)

    def put(self, path, text):
        flags = pb.WriteFileRequest.WriteFileFlags(create_if_missing=True)
        request = pb.WriteFileRequest(path=path, data=text.encode(), flags=flags)
        self.agent.context.WriteFile(request, timeout=machine.SECONDS)

    def write_hook_file(self, name, text):
        self.put(f"/etc/arca/hooks.d/{name}", text)
        never = {"version": "1.0.0", "hook": {"path": "/x"}, "when": {"always": False}, "stages": ["prestart"]}
        self.addCleanup(self.put, f"/etc/arca/hooks.d/{name}", json.dumps(never))

    def root_text(self, script):
        """Output of a shell script that sees the root's processes, and its /tmp as /notes."""
        mounts = [*oci_mounts(), {"type": "none", "source": self.notes, "destination": "/notes", "options": ["rbind"]}]
        done = self.guest.run(f"look-{time.time_ns()}", ["sh", "-c", script], namespaces=("mount",), mounts=mounts)
        self.assertEqual((done.code, done.err), (0, b""))
        return done.out.decode()

    def read_note(self, name):
        return self.root_text(f"cat /notes/{name}")

    def write_note(self, name):
        self.put(f"{self.notes}/{name}", "x")

    def root_processes(self):
        script = "for p in /proc/[0-9]*; do echo \"${p#/proc/} $(tr '\\0' ' ' < $p/cmdline)\"; done 2>/dev/null; true"
        lines = [line.partition(" ") for line in self.root_text(script).splitlines()]
        return {int(pid): command for pid, _, command in lines}

    def kill_root_process(self, pid):
        self.root_text(f"kill -KILL {pid}")

    def listen_words(self, port):
        return ["vsock", str(port)]

    def console(self):
        return self.vm.console_text()

    def test_a_service_has_a_cgroup_beside_the_agents_and_the_containers(self):
        script = f"$B cat /proc/self/cgroup /proc/self/oom_score_adj > $N; echo >&3; exec $B sleep {self.mark}"
        service = {**self.shell(script), "service": {"name": "svc", "ready": {"fd": True}}}
        process = self.create({"createRuntime": [service]})
        self.assertEqual(self.note().split(), [f"0::/service/{self.name}/svc", "0"])
        self.end(process)
        cgroups = {"type": "cgroup2", "source": "none", "destination": "/sys/fs/cgroup", "options": []}
        done = self.guest.run(self.name, ["ls", "/sys/fs/cgroup"], namespaces=("mount",), mounts=[*oci_mounts(), cgroups])
        self.assertNotIn(b"service", done.out.split(), "the last one has taken the folder along")


if __name__ == "__main__":
    unittest.main(verbosity=2)
