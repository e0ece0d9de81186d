"""containerd with everything of its own, and its client ctr, which names the runtime's binary on each call."""

import os
import secrets

import docker_engine
import harness
import image
import processes
import world

CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper",
                    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
                    "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{home}/containerd.sock"
[ttrpc]
address = "{home}/containerd.sock.ttrpc"
"""


class Containerd:
    """A private containerd. Containers run in the namespace "default", so their cgroup is /default/ID."""

    noise = ()

    def __init__(self, reference, subject):
        self.reference, self.subject = reference, subject
        self.home = harness.work() / f"containerd-{secrets.token_hex(4)}"
        self.home.mkdir(parents=True)
        self.client = harness.program("ctr", "containerd")
        self.env = os.environ | {"TERM": "xterm"}
        self.daemon = None
        self.snapshotter = None

    def roots(self, _runtime):
        return ("/run/containerd/runc/default",)

    def start(self):
        self.snapshotter = "overlayfs" if docker_engine.overlay_works(self.home / "overlay-check") else "native"
        config = self.home / "config.toml"
        config.write_text(CONFIG.format(home=self.home))
        self.daemon = processes.Daemon([harness.program("containerd", "containerd"), "--config", config],
                                       self.home / "containerd.log", env=self.env)
        world.wait_until(lambda: self.daemon.alive() and self("version", seconds=20).code == 0, 180,
                         "containerd answers")
        imported = self("images", "import", "--snapshotter", self.snapshotter, harness.archive())
        if imported.code:
            raise RuntimeError(f"ctr images import failed: {imported}")

    def stop(self):
        if self.daemon:
            code = self.daemon.stop()
            if code:
                raise AssertionError(f"containerd ended with {code}:\n{self.daemon.tail()}")

    def log_tail(self):
        lines = self.daemon.tail(400).splitlines()
        return "\n".join([line for line in lines if "level=error" in line or "level=fatal" in line][-8:])

    def argv(self, *arguments):
        return [self.client, "--address", f"{self.home}/containerd.sock", *arguments]

    def __call__(self, *arguments, **options):
        """Runs ctr; gives the Outcome."""
        return processes.call(self.argv(*arguments), env=self.env, **options)

    def run_argv(self, runtime, container, *arguments):
        """`ctr run OPTIONS IMAGE CONTAINER COMMAND`; `arguments` are the options, "--", the command."""
        cut = arguments.index("--") if "--" in arguments else len(arguments)
        return self.argv("run", "--runtime", "io.containerd.runc.v2", "--runc-binary", runtime.path,
                         "--snapshotter", self.snapshotter, *arguments[:cut], image.NAME, container, *arguments[cut + 1:])

    def run(self, runtime, container, *arguments, **options):
        return processes.call(self.run_argv(runtime, container, *arguments), env=self.env, **options)

    def task_pid(self, container):
        """The init's pid as `ctr task ls` shows it, or None."""
        for line in self("task", "ls").text.splitlines()[1:]:
            fields = line.split()
            if fields[0] == container:
                return int(fields[1])
        return None

    def task_status(self, container):
        for line in self("task", "ls").text.splitlines()[1:]:
            fields = line.split()
            if fields[0] == container:
                return fields[2]
        return None

    def remove_all(self):
        """Removes every task and container with its snapshot."""
        for container in self("containers", "ls", "-q").text.split():
            if self.task_status(container):
                self("task", "delete", "-f", container)
            outcome = self("containers", "rm", container)
            if outcome.code:
                raise AssertionError(f"ctr containers rm failed: {outcome}\n{self.log_tail()}")
