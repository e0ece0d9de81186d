"""Containers and their streams in a Machine, as a host makes them.

    with Machine(kernel, image) as vm, Agent(vm) as agent:
        guest = Guest(vm, agent)
        process = guest.run("c1", ["echo", "hello"])    # create, start, wait: .out, .err, .code
        shell = guest.create("c2", ["sh"], stdin=True)  # then shell.start(), shell.stdin.sendall(...), ...
"""

import contextlib
import json

from agent import pb
from machine import SECONDS, read_all

ROOTFS = "/images/busybox"  # what images of test VMs hold, see image_arguments()
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def image_arguments():
    """More arguments of build-image: a busybox for containers, with the folders that are mounted on."""
    arguments = ["--add", f"/bin/busybox={ROOTFS}/bin/busybox"]
    for folder in ("dev", "etc", "proc", "sys", "tmp"):
        arguments += ["--add", f"/dev/null={ROOTFS}/{folder}/.keep"]
    return arguments


def apple_mounts():
    """As Apple's host library sends them."""
    def mount(kind, source, destination, *options):
        return {"type": kind, "source": source, "destination": destination, "options": list(options)}
    return [
        mount("proc", "proc", "/proc"),
        mount("sysfs", "sysfs", "/sys", "nosuid", "noexec", "nodev"),
        mount("devtmpfs", "none", "/dev", "nosuid", "mode=755"),
        mount("mqueue", "mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
        mount("tmpfs", "tmpfs", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        mount("cgroup2", "none", "/sys/fs/cgroup", "nosuid", "noexec", "nodev"),
        mount("devpts", "devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "gid=5", "mode=0620", "ptmxmode=0666"),
    ]


def oci_mounts():
    """As `spec` of OCI runtimes writes them."""
    def mount(kind, source, destination, *options):
        return {"type": kind, "source": source, "destination": destination, "options": list(options)}
    return [
        mount("proc", "proc", "/proc"),
        mount("tmpfs", "tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("devpts", "devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        mount("tmpfs", "shm", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        mount("mqueue", "mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
        mount("sysfs", "sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
    ]


def configuration(args, root=ROOTFS, terminal=False, mounts=None, namespaces=("pid", "mount", "uts", "ipc", "cgroup"),
                  hostname="", env=(), **more):
    """An OCI configuration in the form that Apple's host library has; `more` goes to the top level."""
    config = {
        "ociVersion": "",
        "root": {"path": root, "readonly": False},
        "hostname": hostname,
        "mounts": oci_mounts() if mounts is None else mounts,
        "process": {
            "args": list(args), "cwd": "/", "env": [PATH, *env], "terminal": terminal,
            "user": {"uid": 0, "gid": 0, "additionalGids": [], "username": ""},
            "noNewPrivileges": False, "apparmorProfile": "", "selinuxLabel": "", "commandLine": "",
        },
        "linux": {
            "namespaces": [{"type": name, "path": ""} for name in namespaces],
            "resources": {"devices": [], "hugepageLimits": []},
            "rootfsPropagation": "", "mountLabel": "", "cgroupsPath": "",
        },
    }
    config.update(more)
    return config


def encoded(config):
    """As the Swift encoder writes it: with escaped slashes."""
    return json.dumps(config).replace("/", "\\/").encode()


class Process:
    """A process of a container; its streams are sockets or None."""

    def __init__(self, guest, container, name, stdin, stdout, stderr):
        self.guest, self.container, self.name = guest, container, name
        self.wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self.ports, self.listeners = {}, {}
        self.stdin = self.stdout = self.stderr = None
        self.out = self.err = None
        self.code = None

    @property
    def key(self):
        return {"id": self.name, "containerID": self.container}

    def create(self, config):
        for stream, wanted in self.wanted.items():
            if wanted:
                self.ports[stream] = self.guest.vm.new_port()
                self.listeners[stream] = self.guest.vm.listen(self.ports[stream], 1)
        try:
            self.call("CreateProcess", configuration=encoded(config), **self.ports)
            for stream, listener in self.listeners.items():
                connection, _ = listener.accept()
                connection.settimeout(SECONDS)
                setattr(self, stream, connection)
        except BaseException:
            self.close()
            raise
        finally:
            for listener in self.listeners.values():
                listener.close()
        return self

    def call(self, rpc, seconds=SECONDS, **fields):
        request = getattr(pb, rpc + "Request")(**self.key, **fields)
        return getattr(self.guest.agent.context, rpc)(request, timeout=seconds)

    def start(self):
        return self.call("StartProcess").pid

    def kill(self, number):
        return self.call("KillProcess", signal=number)

    def wait(self, seconds=SECONDS):
        self.code = self.call("WaitProcess", seconds).exitCode
        return self.code

    def delete(self):
        self.call("DeleteProcess")
        self.close()

    def finish(self):
        """Reads what the process writes, waits for it, deletes it."""
        self.out = read_all(self.stdout) if self.stdout else None
        self.err = read_all(self.stderr) if self.stderr else None
        self.wait()
        self.delete()
        return self

    def close(self):
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()


class Guest:
    """`rootfs`: path of a root file system with busybox, as the agent sees it."""

    def __init__(self, vm, agent, rootfs=ROOTFS):
        self.vm, self.agent, self.rootfs = vm, agent, str(rootfs)

    def configuration(self, args, **more):
        """For a program of busybox."""
        return configuration(["/bin/busybox", *args], **{"root": self.rootfs, **more})

    def create(self, container, args, stdin=False, stdout=True, stderr=True, **more):
        """A container's init. `config`: instead of configuration(args, **more)."""
        config = more.pop("config", None) or self.configuration(args, **more)
        if config["process"]["terminal"]:
            stderr = False
        return Process(self, container, container, stdin, stdout, stderr).create(config)

    def execute(self, container, name, args, stdin=False, stdout=True, stderr=True, **more):
        """One more process in a container, created but not started."""
        config = self.configuration(args, **more)
        if config["process"]["terminal"]:
            stderr = False
        return Process(self, container, name, stdin, stdout, stderr).create(config)

    def run(self, container, args, **more):
        process = self.create(container, args, **more)
        try:
            process.start()
        except BaseException:
            with contextlib.suppress(Exception):
                process.delete()
            raise
        return process.finish()
