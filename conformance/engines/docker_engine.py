"""dockerd with everything of its own: data, sockets, bridge (in the world's network namespace) and two runtimes."""

import json
import os
import secrets
import subprocess

import harness
import image
import processes
import world


RECORDER = """\
#!/bin/sh
bundle=
for word in "$@"; do
    [ "$bundle" = next ] && bundle=$word && cp "$word/config.json" {copy}
    [ "$word" = --bundle ] && bundle=next
done
exec {runtime} "$@"
"""


def overlay_works(directory):
    """True if an overlay file system can have its upper directory in `directory`."""
    names = [directory / name for name in ("lower", "upper", "worker", "merged")]
    for name in names:
        name.mkdir(parents=True, exist_ok=True)
    lower, upper, worker, merged = names
    try:
        world.mount("overlay", merged, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={worker}")
    except OSError:
        return False
    world.umount(merged)
    return True


class Docker:
    """A private dockerd (it starts its own containerd) and its client."""

    # The client says so when a container ends before its first resize, which depends on the machine's load.
    noise = (rb"failed to resize tty, using default size\r\n",)

    def __init__(self, reference, subject):
        self.reference, self.subject = reference, subject
        self.home = harness.work() / f"docker-{secrets.token_hex(4)}"
        self.home.mkdir(parents=True)
        self.socket = self.home / "docker.sock"
        self.exec_root = self.home / "exec"
        self.client = harness.program("docker", "docker.io")
        (self.home / "client").mkdir()
        self.env = os.environ | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.home / "client"),
                                 "TERM": "xterm"}
        self.daemon = None

    def roots(self, _runtime):
        """dockerd gives every runtime the same --root."""
        return (str(self.exec_root / "runtime-runc" / "moby"),)

    def start(self):
        driver = "overlay2" if overlay_works(self.home / "overlay-check") else "vfs"
        self.daemon = processes.Daemon(
            [harness.program("dockerd", "docker.io"), "--config-file", self.write_config(), "-H", f"unix://{self.socket}",
             "--data-root", self.home / "data", "--exec-root", self.exec_root, "--pidfile", self.home / "docker.pid",
             "--storage-driver", driver, "--ipv6=false", "--ip6tables=false", "--shutdown-timeout", "5",
             "--add-runtime", f"{self.reference.name}={self.reference.path}",
             "--add-runtime", f"{self.subject.name}={self.subject.path}", "--default-runtime", self.subject.name,
             "--add-runtime", f"recorder={self.write_recorder()}"],
            self.home / "dockerd.log", env=self.env)
        world.wait_until(lambda: self.daemon.alive() and self("version", seconds=20).code == 0, 180, "dockerd answers")
        loaded = self("load", "-i", harness.archive())
        if loaded.code:
            raise RuntimeError(f"docker load failed: {loaded}")

    def write_config(self):
        path = self.home / "daemon.json"
        path.write_text("{}")
        return path

    def write_recorder(self):
        """A runtime named "recorder": runc, but the config.json of a container stays in `home`/recorded.json."""
        path = self.home / "recorder"
        path.write_text(RECORDER.format(copy=self.home / "recorded.json", runtime=self.reference.path))
        path.chmod(0o755)
        return path

    def stop(self):
        if self.daemon:
            code = self.daemon.stop()
            if code:
                raise AssertionError(f"dockerd ended with {code}:\n{self.daemon.tail()}")

    def log_tail(self):
        """The errors that dockerd logged last."""
        lines = self.daemon.tail(400).splitlines()
        return "\n".join([line for line in lines if "level=error" in line or "level=fatal" in line][-8:])

    def __call__(self, *arguments, **options):
        """Runs the docker client; gives the Outcome."""
        return processes.call([self.client, *arguments], env=self.env, **options)

    def argv(self, runtime, *arguments):
        """The command line of `docker run` of the test image: options and command are told apart by '--'."""
        cut = arguments.index("--") if "--" in arguments else len(arguments)
        options, command = arguments[:cut], arguments[cut + 1:]
        return [self.client, "run", "--runtime", runtime.name, *options, image.NAME, *command]

    def run(self, runtime, *arguments, **options):
        """`docker run OPTIONS IMAGE COMMAND`; `arguments` are the options, "--", the command."""
        return processes.call(self.argv(runtime, *arguments), env=self.env, **options)

    def begin(self, runtime, *arguments):
        """`docker run -d`: gives the container's id; RuntimeError if it does not start."""
        outcome = self.run(runtime, "-d", *arguments)
        if outcome.code:
            raise RuntimeError(f"container did not start: {outcome}\n{self.log_tail()}")
        return outcome.text.strip()

    def inspect(self, container, template):
        outcome = self("inspect", "-f", template, container)
        if outcome.code:
            raise RuntimeError(f"inspect failed: {outcome}")
        return outcome.text.strip()

    def wait_for_log(self, container, text, seconds=120):
        """Follows the container's log until `text` is in it, and gives what came so far."""
        follower = subprocess.Popen([self.client, "logs", "-f", container], stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, env=self.env)
        try:
            return processes.read_until(follower.stdout, text, seconds)
        finally:
            follower.kill()
            follower.wait()
            follower.stdout.close()

    def remove_all(self):
        """Removes every container; AssertionError if docker cannot."""
        containers = self("ps", "-aq", "--no-trunc").text.split()
        if containers:
            outcome = self("rm", "-f", "-v", *containers)
            if outcome.code:
                raise AssertionError(f"docker rm -f failed: {outcome}\n{self.log_tail()}")

    def default_runtime_version(self):
        """What dockerd found out about its default runtime by running it with --version."""
        components = json.loads(self("version", "--format", "{{json .Server.Components}}").text)
        return {c["Name"]: c["Version"] for c in components}
