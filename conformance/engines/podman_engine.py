"""podman with storage, run directory, configuration and network of its own; no daemon."""

import os
import secrets

import docker_engine
import harness
import image
import processes

CONTAINERS_CONF = """\
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
[network]
network_backend = "cni"
network_config_dir = "{home}/cni"
"""

STORAGE_CONF = """\
[storage]
driver = "{driver}"
graphroot = "{home}/root"
runroot = "{home}/runroot"
"""

POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Podman:
    """podman, told of the runtime by path on each call. Containers use podman's default cgroup parent."""

    # podman says so when a container ends while its window is being resized, which depends on the machine's load.
    noise = (rb"\x1b\[31mERRO\x1b\[0m\[\d+\] container not running[^\n]*\n",)

    def __init__(self, reference, subject):
        self.reference, self.subject = reference, subject
        self.home = harness.work() / f"podman-{secrets.token_hex(4)}"
        self.home.mkdir(parents=True)
        self.client = harness.program("podman", "podman")
        harness.program("conmon", "conmon")
        (self.home / "containers.conf").write_text(CONTAINERS_CONF.format(home=self.home))
        (self.home / "policy.json").write_text(POLICY)
        self.env = os.environ | {"CONTAINERS_CONF": str(self.home / "containers.conf"), "TERM": "xterm",
                                 "CONTAINERS_STORAGE_CONF": str(self.home / "storage.conf")}
        self.env.pop("XDG_RUNTIME_DIR", None)
        self.driver = "overlay" if docker_engine.overlay_works(self.home / "overlay-check") else "vfs"
        (self.home / "storage.conf").write_text(STORAGE_CONF.format(driver=self.driver, home=self.home))

    def roots(self, runtime):
        """podman passes no --root: each runtime uses its default."""
        return (f"/run/{os.path.basename(runtime.path)}", "/run/runc", "/run/crun", "/run/arca-runtime")

    def start(self):
        loaded = processes.call([*self.argv(self.reference), "load", "-i", harness.archive(), "--signature-policy",
                                 self.home / "policy.json"], env=self.env)
        if loaded.code:
            raise RuntimeError(f"podman load failed: {loaded}")

    def stop(self):
        self.remove_all()

    def log_tail(self):
        return ""

    def argv(self, runtime):
        return [self.client, "--root", self.home / "root", "--runroot", self.home / "runroot",
                "--storage-driver", self.driver, "--cgroup-manager", "cgroupfs", "--runtime", runtime.path]

    def __call__(self, runtime, *arguments, **options):
        """Runs podman with this runtime; gives the Outcome."""
        return processes.call([*self.argv(runtime), *arguments], env=self.env, **options)

    def run_argv(self, runtime, *arguments):
        """`podman run OPTIONS IMAGE COMMAND`; `arguments` are the options, "--", the command."""
        cut = arguments.index("--") if "--" in arguments else len(arguments)
        options = arguments[:cut]
        if "--network" not in options:
            options = ("--network", "none", *options)
        return [*self.argv(runtime), "run", *options, image.NAME, *arguments[cut + 1:]]

    def run(self, runtime, *arguments, **options):
        return processes.call(self.run_argv(runtime, *arguments), env=self.env, **options)

    def begin(self, runtime, *arguments):
        """`podman run -d`: gives the container's id; RuntimeError if it does not start."""
        outcome = self.run(runtime, "-d", *arguments)
        if outcome.code:
            raise RuntimeError(f"container did not start: {outcome}")
        return outcome.text.strip()

    def remove_all(self):
        """Removes every container, each with the runtime it was made with."""
        for runtime in (self.reference, self.subject):
            outcome = self(runtime, "rm", "-a", "-f", "-t", "0", "-v")
            if outcome.code:
                raise AssertionError(f"podman rm failed: {outcome}")
